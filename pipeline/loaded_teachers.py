"""Teachers that this process has loaded and still has in memory; training refuses them."""

from __future__ import annotations

import gc
from weakref import WeakKeyDictionary

from torch import nn

_MODULES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""All modules of all teachers, so that a part that outlives its model counts."""


def register_teacher(model: nn.Module) -> None:
    """Register a loaded teacher, without keeping it in memory."""
    for module in model.modules():
        _MODULES[module] = type(model).__name__


def teachers_in_memory() -> dict[str, int]:
    """Return the bytes of the teachers in memory, by the class of their model."""
    if any(_bytes_by_teacher().values()):
        gc.collect()  # models have reference cycles
    return {name: size for name, size in _bytes_by_teacher().items() if size}


def bytes_of(module: nn.Module, *, recurse: bool = True) -> int:
    """Return the bytes of a module's parameters and buffers; those on `meta` have none."""
    tensors = [*module.parameters(recurse), *module.buffers(recurse)]
    return sum(tensor.nbytes for tensor in {*tensors} if not tensor.is_meta)


def _bytes_by_teacher() -> dict[str, int]:
    sizes: dict[str, int] = {}
    for module, name in list(_MODULES.items()):
        sizes[name] = sizes.get(name, 0) + bytes_of(module, recurse=False)
    return sizes

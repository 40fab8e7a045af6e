"""Which device computes, in which type, and on a GPU with the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

# oneDNN keeps what it prepares for each shape of a bfloat16 product, a thousand of them: with
# lengths that hardly ever come again that is memory without end. A forward pass uses a handful of
# shapes, again and again.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "32")
# cuBLAS gives the same bits each time if its workspace is fixed before it first multiplies.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch  # noqa: E402  # reads them when it first multiplies

from pipeline.errors import InputError, reason  # noqa: E402

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
DtypeName = Literal["fp32", "bf16"]


def choose_device(name: str = "auto", option: str = "--device") -> torch.device:
    """The device of that name, or with `auto` the first accelerator there is, else the CPU.

    Raises:
        InputError: no such device on this machine.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{option} {name}: not usable on this machine ({reason(error)}); use {option} cpu"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> DtypeName:
    """The compute dtype asked for, or with `auto` bf16 where the device has instructions for it,
    else fp32.

    fp16 is not offered: the attention-sink tokens of middle layers overflow it.
    """
    if name == "bf16" or (name == "auto" and _has_fast_bf16(device)):
        return "bf16"
    return "fp32"


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Meanwhile a GPU computes by those algorithms that give the same bits each time; what training
    uses on a CPU does anyway."""
    if device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic
    was, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    filled = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = (
        False  # costs time, and nothing here reads what it has not written
    )
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        settings.fill_uninitialized_memory = filled


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )

"""Proof that no teacher is in memory while a student is trained."""

from __future__ import annotations

import gc
import re
import sys
from typing import Any

from torch import nn

from pipeline.errors import RunError
from pipeline.model import LLMModulesForCausalLM


def weights_beside() -> dict[str, int]:
    """Bytes of the weights in this process's memory that are of no student, by the class of their
    model.

    A model that another one contains is counted with that one. Weights that are not in memory
    (`meta`) count nothing."""
    gc.collect()
    found: list[nn.Module] = [
        each for each in gc.get_objects() if issubclass(type(each), nn.Module)
    ]
    own = {
        id(weights)
        for module in found
        if isinstance(module, LLMModulesForCausalLM)
        for weights in module.parameters()
    }
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    beside: dict[str, int] = {}
    for module in found:
        size = sum(w.nbytes for w in module.parameters() if id(w) not in own and not w.is_meta)
        if size and id(module) not in inner:
            beside[type(module).__name__] = beside.get(type(module).__name__, 0) + size
    return beside


def require_no_teacher() -> None:
    """Refuse to train beside any other weights than students'.

    Raises:
        RunError: names the models, and what they hold.
    """
    if beside := weights_beside():
        named = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in beside.items())
        raise RunError(
            f"beside the student there are weights in memory: {named}; train in a process of its"
            " own, or let go of them"
        )


def loaded_rooms() -> dict[str, Any]:
    """What of this project, and whose models' code of transformers, has been imported, for
    run.json."""
    families = {
        name.split(".")[2]
        for name in sys.modules
        if re.match(r"transformers\.models\.\w+\.modeling_", name)
    }
    return {
        "project": sorted(name for name in sys.modules if name.startswith(("pipeline.", "cache."))),
        "model_families": sorted(families - {"auto"}),
    }

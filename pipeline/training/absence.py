"""Refuse to train with a teacher in memory, and record the weights and modules that are."""

from __future__ import annotations

import re
import sys
from typing import Any

from pipeline.errors import RunError
from pipeline.loaded_teachers import bytes_of, teachers_in_memory
from pipeline.training.prepare import PreparedRun


def require_no_teacher() -> None:
    """Refuse to train while a teacher that this process has loaded is in memory.

    Other models in the process are allowed.

    Raises:
        RunError: names the teachers, with their sizes.
    """
    if teachers := teachers_in_memory():
        named = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in teachers.items())
        raise RunError(
            f"teacher in memory: {named}; training needs none: delete it, or train in another"
            " process"
        )


def weights_of_run(prepared: PreparedRun) -> dict[str, int]:
    """Return the bytes of parameters and buffers that a run has in memory, for run.json.

    With `--distill` they include the LM head that the cache keeps.
    """
    weights = {"student": bytes_of(prepared.model), "codec_fits": bytes_of(prepared.decoder)}
    if prepared.predictions is not None:
        weights["kept_lm_head"] = bytes_of(prepared.predictions)
    return {name: size for name, size in weights.items() if size}


def loaded_modules() -> dict[str, Any]:
    """Return the imported modules of this project and of model families, for run.json."""
    families = {
        name.split(".")[2]
        for name in sys.modules
        if re.match(r"transformers\.models\.\w+\.modeling_", name)
    }
    return {
        "project": sorted(name for name in sys.modules if name.startswith(("pipeline.", "cache."))),
        "model_families": sorted(families - {"auto"}),
    }

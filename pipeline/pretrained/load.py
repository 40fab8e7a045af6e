"""Loading a configuration or weights by transformers: strictly, and without running what lies
beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from pipeline.errors import reason
from pipeline.pretrained.files import require_no_pointers, require_weights
from pipeline.pretrained.tensors import require_all_tensors

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""For each `from_pretrained` and `from_config`: code that comes with a model is not run, and nobody
is prompted for leave."""


def load_config(location: str | Path, **options: Any) -> PreTrainedConfig:
    """A configuration by hub id or folder.

    Raises:
        Exception: it cannot be had; transformers raises whatever it likes.
    """
    if (folder := _folder(location, options)) is not None:
        require_no_pointers(folder)
    config: PreTrainedConfig = AutoConfig.from_pretrained(location, **NO_CODE, **options)
    return config


def load_weights(kind: Any, location: str | Path, **options: Any) -> Any:
    """A model of an Auto class, or of a class of its own, from exactly the tensors that it has;
    from no pickle.

    Args:
        kind: the class, with `from_pretrained`.
        location: hub id or folder.
        options: further arguments of `from_pretrained`.

    Raises:
        ValueError: names tensors that are missing, unexpected, or of another shape.
        Exception: the files cannot be had; transformers raises whatever it likes.
    """
    if (folder := _folder(location, options)) is not None:
        require_weights(folder)
    how: dict[str, Any] = (
        {"use_safetensors": True, "ignore_mismatched_sizes": True} | NO_CODE | options
    )
    model, loading_info = kind.from_pretrained(location, output_loading_info=True, **how)
    require_all_tensors(model, loading_info)
    return model


def load_error_reason(error: BaseException) -> str:
    """In a few words, why something could not be loaded."""
    told = str(error)
    if "trust_remote_code" in told or "custom code" in told:
        return (
            "it needs code of its own, which is never run; take a model of a kind that transformers"
            " has itself"
        )
    return reason(error)


def _folder(location: str | Path, options: dict[str, Any]) -> Path | None:
    """The folder that files are taken from, where it is one; of a GGUF file's folder no other file
    counts."""
    folder = Path(location)
    return folder if folder.is_dir() and "gguf_file" not in options else None

"""Strict loading of configurations and weights by transformers, without running their code."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GgufConfig, PreTrainedConfig

from pipeline.errors import reason
from pipeline.pretrained.files import require_no_pointers, require_weights
from pipeline.pretrained.gguf_tensors import require_all_tensors_used
from pipeline.pretrained.source import ModelSource
from pipeline.pretrained.tensors import require_all_tensors

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""For each `from_pretrained` and `from_config`: a model's code is not run, without a prompt."""


def load_config(location: str | Path, **options: Any) -> PreTrainedConfig:
    """Return a configuration, by hub id or folder.

    Raises:
        Exception: it cannot be loaded; transformers raises various errors.
    """
    if (folder := _folder(location, options)) is not None:
        require_no_pointers(folder)
    config: PreTrainedConfig = (
        read_once(AutoConfig, Path(location) / options["gguf_file"])
        if options.keys() == {"gguf_file"}
        else AutoConfig.from_pretrained(location, **NO_CODE, **options)
    )
    return config


def read_once(kind: Any, gguf_file: Path) -> Any:
    """Return a GGUF file's configuration or tokenizer: a copy of the one that was read first.

    Reading either takes ten seconds, as the file lists its whole vocabulary.

    Args:
        kind: an Auto class.
        gguf_file: read again if it has changed.

    Raises:
        Exception: it cannot be loaded; transformers raises various errors.
    """
    return copy.deepcopy(_read(kind, gguf_file, gguf_file.stat().st_mtime_ns))


@lru_cache(maxsize=4)
def _read(kind: Any, gguf_file: Path, _modified: int) -> Any:
    return kind.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, **NO_CODE)


def load_weights(kind: Any, location: str | Path, **options: Any) -> Any:
    """Return a model, loaded from exactly its own tensors and never from a pickle.

    Args:
        kind: an Auto class or a model class.
        location: hub id or folder.
        options: further arguments of `from_pretrained`.

    Raises:
        ValueError: names tensors that are missing, unexpected, or of another shape.
        Exception: the files cannot be loaded; transformers raises various errors.
    """
    if (folder := _folder(location, options)) is not None:
        require_weights(folder)
    how: dict[str, Any] = (
        {"use_safetensors": True, "ignore_mismatched_sizes": True} | NO_CODE | options
    )
    model, loading_info = kind.from_pretrained(location, output_loading_info=True, **how)
    require_all_tensors(model, loading_info)
    return model


def load_model(kind: Any, source: ModelSource, **options: Any) -> Any:
    """Return a model of any source, loaded from exactly its own tensors.

    The weights of a GGUF file are dequantised once, as otherwise every forward pass would.

    Args:
        kind: an Auto class or a model class.
        source: a hub id, folder or GGUF file.
        options: further arguments of `from_pretrained`.

    Raises:
        ValueError: as `load_weights`.
        Exception: as `load_weights`.
    """
    if not source.is_gguf:
        return load_weights(kind, source.location, **options, **source.options)
    dequantised = {"quantization_config": GgufConfig(dequantize=True), "use_safetensors": None}
    model = load_weights(kind, source.location, **dequantised, **options, **source.options)
    require_all_tensors_used(Path(source.name), model)
    return model


def load_error_reason(error: BaseException) -> str:
    """Return in one line why loading failed."""
    message = str(error)
    if "trust_remote_code" in message or "custom code" in message:
        return (
            "it needs its own code, which is never run; choose a model that transformers supports"
        )
    return reason(error)


def _folder(location: str | Path, options: dict[str, Any]) -> Path | None:
    """Return the local folder to check, or None for a hub id or a GGUF file."""
    folder = Path(location)
    return folder if folder.is_dir() and "gguf_file" not in options else None

"""Checks that the files of a model are complete, and not Git LFS pointers."""

from __future__ import annotations

import json
import struct
import traceback
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.distributed.checkpoint import is_sharded_checkpoint
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

DAMAGED = "truncated or damaged; copy it again from its source"
_POINTER = b"version https://git-lfs."
_MAX_POINTER_BYTES = 1024
_USED = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
"""Files of configurations and tokenizers; others, such as pickled weights, may be pointers."""
_GGUF = b"GGUF"


def require_no_pointers(folder: Path) -> None:
    """Refuse a folder that was cloned without Git LFS.

    Raises:
        ValueError: names a pointer file.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _USED and file.is_file():
            _require_no_pointer(file)


def _require_no_pointer(file: Path) -> None:
    if is_pointer(file):
        raise ValueError(
            f"{file.name} is a Git LFS pointer, not the file itself; run `git lfs pull` there"
        )


def is_pointer(file: Path) -> bool:
    """Return whether a file is a Git LFS pointer."""
    if file.stat().st_size > _MAX_POINTER_BYTES:
        return False
    return file.read_bytes().startswith(_POINTER)


def require_weights(folder: Path) -> None:
    """Refuse a folder without complete safetensors weights; no tensor is read.

    Raises:
        ValueError: names the file and the problem.
    """
    require_no_pointers(folder)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            "it is an adapter (adapter_config.json); merge it into its model and name the merged"
            " model"
        )
    if is_sharded_checkpoint(folder):
        raise ValueError(
            "its weights are shards of a distributed checkpoint; save the model with"
            " `save_pretrained`"
        )
    for file in _weights(folder):
        _require_no_pointer(file)
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file.name} is {DAMAGED}") from error


def require_gguf(file: Path) -> None:
    """Refuse anything but a complete GGUF file.

    Raises:
        ValueError: names the problem.
    """
    _require_no_pointer(file)
    with file.open("rb") as opened:
        magic = opened.read(len(_GGUF))
    if magic != _GGUF:
        raise ValueError("it is not a GGUF file")
    try:
        metadata, _ = read_gguf_metadata(str(file))
    except (ValueError, IndexError, OverflowError, MemoryError, struct.error) as error:
        raise ValueError(f"it is {DAMAGED}") from error
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"it is one part of {parts}; merge the parts with `llama-gguf-split --merge FIRST-PART"
            " WHOLE.gguf`, and name the merged file"
        )


def _weights(folder: Path) -> list[Path]:
    """Return the weight files that transformers would load, in its order of preference."""
    single, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if named := _read_json(folder / "config.json").get("transformers_weights"):
        raise ValueError(
            f"config.json names other weights (transformers_weights: {named}); save them as"
            f" {SAFE_WEIGHTS_NAME}"
        )
    if single.is_file():
        return [single]
    if not index.is_file():
        missing_part = (
            "index of the shards" if any(folder.glob("*.safetensors")) else ".safetensors weights"
        )
        raise ValueError(
            f"no {missing_part} in this folder ({SAFE_WEIGHTS_NAME} or {index.name}); save the"
            " model with `save_pretrained`"
        )
    shards_of = _read_json(index).get("weight_map")
    names = (
        sorted({str(name) for name in shards_of.values()}) if isinstance(shards_of, dict) else []
    )
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(
            f"{index.name} does not map tensors to files; copy it again from its source"
        )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"{index.name} names missing files ({', '.join(missing)}); copy them from their source"
        )
    return [folder / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{file.name} is not JSON ({error}); copy it again from its source"
        ) from error
    return content if isinstance(content, dict) else {}


def is_gguf_reader_error(error: BaseException) -> bool:
    """Return whether the GGUF library, which has no error classes, raised an error."""
    from gguf import gguf_reader

    return traceback.extract_tb(error.__traceback__)[-1].filename == gguf_reader.__file__

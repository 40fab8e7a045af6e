"""The files of a model as they lie in a folder: are they themselves, and whole?"""

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

DAMAGED = "cut off or damaged; copy it again from where it is from"
_POINTER = b"version https://git-lfs."
_MOST_POINTER_BYTES = 1024
_READ = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
"""What a configuration and a tokenizer are read from; pickled weights and pictures may be pointers
for ever."""
_GGUF = b"GGUF"


def require_no_pointers(folder: Path) -> None:
    """Refuse a folder that was cloned without Git LFS: some of its files are a few lines that stand
    for them.

    Raises:
        ValueError: names such a file.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _READ and file.is_file():
            _require_no_pointer(file)


def _require_no_pointer(file: Path) -> None:
    if is_pointer(file):
        raise ValueError(
            f"{file.name} is a Git LFS pointer and not the file itself; run `git lfs pull` there"
        )


def is_pointer(file: Path) -> bool:
    """Whether a file is one of Git LFS's pointers."""
    if file.stat().st_size > _MOST_POINTER_BYTES:
        return False
    return file.read_bytes().startswith(_POINTER)


def require_weights(folder: Path) -> None:
    """Refuse a folder without whole weights in safetensors, as far as its files show; no tensor is
    read.

    Raises:
        ValueError: says which file, and what is wrong with it.
    """
    require_no_pointers(folder)
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            "it holds an adapter (adapter_config.json); merge that into its model and name the"
            " merged one"
        )
    if is_sharded_checkpoint(folder):
        raise ValueError(
            "its weights are the shards of several processes; save them whole, with save_pretrained"
        )
    for file in _weights(folder):
        _require_no_pointer(file)
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file.name} is {DAMAGED}") from error


def require_gguf(file: Path) -> None:
    """Refuse what is no GGUF file, or one part of several.

    Raises:
        ValueError: says what it is.
    """
    _require_no_pointer(file)
    with file.open("rb") as opened:
        begin = opened.read(len(_GGUF))
    if begin != _GGUF:
        raise ValueError("its first bytes are not GGUF")
    try:
        metadata, _ = read_gguf_metadata(str(file))
    except (ValueError, IndexError, OverflowError, MemoryError, struct.error) as error:
        raise ValueError(f"it is {DAMAGED}") from error
    parts = metadata.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"it is one part of {parts}, and the other tensors are in the others; merge the parts"
            " with `llama-gguf-split --merge FIRST-PART WHOLE.gguf`, and name the whole"
        )


def _weights(folder: Path) -> list[Path]:
    """The files that transformers would read, in its order of preference."""
    single, index = folder / SAFE_WEIGHTS_NAME, folder / SAFE_WEIGHTS_INDEX_NAME
    if named := _read_json(folder / "config.json").get("transformers_weights"):
        raise ValueError(
            f"config.json names other weights (transformers_weights: {named}); save it as"
            f" {SAFE_WEIGHTS_NAME}"
        )
    if single.is_file():
        return [single]
    if not index.is_file():
        shards = (
            " index of the shards" if any(folder.glob("*.safetensors")) else " .safetensors weights"
        )
        raise ValueError(
            f"no{shards} in this folder ({SAFE_WEIGHTS_NAME} or {index.name}); save it with"
            " safetensors"
        )
    shards_of = _read_json(index).get("weight_map")
    names = (
        sorted({str(name) for name in shards_of.values()}) if isinstance(shards_of, dict) else []
    )
    if not names or any(Path(name).name != name for name in names):
        raise ValueError(
            f"{index.name} does not say which tensors are in which file; copy it again from where"
            " it is from"
        )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"{index.name} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'}"
            " not there"
        )
    return [folder / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(
            f"{file.name} is not JSON ({error}); copy it again from where it is from"
        ) from error
    return found if isinstance(found, dict) else {}


def is_gguf_reader_error(error: BaseException) -> bool:
    """Whether an error was raised by the library that reads GGUF files, which has no errors of its
    own."""
    from gguf import gguf_reader

    return traceback.extract_tb(error.__traceback__)[-1].filename == gguf_reader.__file__

"""The vocabulary of a data set: the tokens that occur in it, and their rows of the LM head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.data.attachments import read_json, write_json
from pipeline.errors import InputError

VOCABULARY = "vocabulary"
"""Name of the cache's attachment."""
_FILE = "tokens.json"
_HEAD = "lm_head.safetensors"


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that represent no text, such as ends of turns and padding."""
    return [int(token) for token in tokenizer.all_special_ids]


def write_vocabulary(
    folder: Path, tokens: Sequence[int], lm_head_KD: torch.Tensor | None = None
) -> None:
    """Write ascending token ids, and optionally the LM head's row of each."""
    write_json(folder / _FILE, list(tokens))
    if lm_head_KD is not None:
        save_file({"weight": lm_head_KD.contiguous()}, folder / _HEAD)


def read_vocabulary(folder: Path) -> list[int]:
    """Return the token ids of an attachment, ascending.

    Raises:
        InputError: the file is unreadable, or not a list of token ids.
    """
    path = folder / _FILE
    tokens = read_json(path)
    if not isinstance(tokens, list) or not all(
        type(token) is int and token >= 0 for token in tokens
    ):
        raise InputError(f"{path}: not a list of token ids; extract the cache again")
    return sorted(set(tokens))


def read_lm_head(folder: Path) -> torch.Tensor | None:
    """Return the LM head `[K, d_teacher]`, one row per token id, or None if it was not kept.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _HEAD
    if not path.is_file():
        return None
    try:
        return load_file(path)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); check the cache with `cache verify`"
        ) from error


def kept_head(cache: Cache, option: str) -> tuple[list[int], torch.Tensor]:
    """Return a cache's vocabulary, and the LM head `[K, d_teacher]` with one row per token.

    Args:
        cache: extracted with `--keep-head`.
        option: the option that needs them, for messages.

    Raises:
        InputError: the cache lacks the LM head, or the layer that it reads.
    """
    if -1 not in cache.layers:
        raise InputError(
            f"{cache.address}: lacks layer -1, which {option} needs; extract with --layers -1,…"
        )
    folder = cache.attachment(VOCABULARY)
    rows_KD = read_lm_head(folder)
    if rows_KD is None:
        raise InputError(
            f"{cache.address}: lacks the LM head, which {option} needs; extract with --keep-head"
        )
    return read_vocabulary(folder), rows_KD

"""The tokens that occur in a data set, a small part of a large model's vocabulary, and what the
model knows of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from cache import Cache
from pipeline.errors import InputError

VOCABULARY = "vocabulary"
"""Name of the attachment of a cache that names them."""
_FILE = "tokens.json"
_HEAD = "lm_head.safetensors"


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that mean no text: beginnings and ends of turns, padding."""
    return [int(token) for token in tokenizer.all_special_ids]


def write_vocabulary(
    folder: Path, tokens: Sequence[int], lm_head_KD: torch.Tensor | None = None
) -> None:
    """Write token ids down, which ascend, and where it is given the teacher's LM head: a row for
    each of them."""
    folder.mkdir(parents=True)
    (folder / _FILE).write_text(json.dumps(list(tokens)) + "\n")
    if lm_head_KD is not None:
        save_file({"weight": lm_head_KD.contiguous()}, folder / _HEAD)


def read_vocabulary(folder: Path) -> list[int]:
    """The token ids that were written down, ascending.

    Raises:
        InputError: the file holds something else.
    """
    path = folder / _FILE
    try:
        tokens = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    if not isinstance(tokens, list) or not all(
        type(token) is int and token >= 0 for token in tokens
    ):
        raise InputError(f"{path}: is no list of token ids")
    return sorted(set(tokens))


def read_lm_head(folder: Path) -> torch.Tensor | None:
    """The teacher's LM head `[K, d_teacher]`, a row for each token id; None where it was not kept.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / _HEAD
    if not path.is_file():
        return None
    try:
        return load_file(path)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def kept_head(cache: Cache, option: str) -> tuple[list[int], torch.Tensor]:
    """The tokens that occur in a cache, and the rows `[K, d_teacher]` that the teacher's LM head
    has for them.

    Args:
        cache: keeps them.
        option: what they are needed for.

    Raises:
        InputError: the cache keeps no LM head, or lacks the states that it reads.
    """
    if -1 not in cache.layers:
        raise InputError(
            f"{cache.address}: lacks layer -1, the LM head's; {option} needs extract --layers -1,…"
        )
    folder = cache.attachment(VOCABULARY)
    rows_KD = read_lm_head(folder)
    if rows_KD is None:
        raise InputError(
            f"{cache.address}: keeps no LM head for {option}; extract with --keep-head"
        )
    return read_vocabulary(folder), rows_KD

"""The tokens that occur in a data set: a small part of a large model's vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pipeline.errors import InputError

VOCABULARY = "vocabulary"
"""Name of the attachment of a cache that names them."""
_FILE = "tokens.json"


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that mean no text: beginnings and ends of turns, padding."""
    return [int(token) for token in tokenizer.all_special_ids]


def write_vocabulary(folder: Path, tokens: Iterable[int]) -> None:
    """Write token ids down, each once and in order."""
    folder.mkdir(parents=True)
    (folder / _FILE).write_text(json.dumps(sorted(set(tokens))) + "\n")


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
    if not isinstance(tokens, list) or not all(type(token) is int and token >= 0 for token in tokens):
        raise InputError(f"{path}: is no list of token ids")
    return sorted(set(tokens))

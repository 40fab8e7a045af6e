"""A saved tokenizer, and what makes it the same one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cache.sealed_json import canonical_json
from pipeline.errors import InputError
from pipeline.pretrained.files import require_no_pointers
from pipeline.pretrained.load import NO_CODE, load_error_reason


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of everything that decides how text becomes tokens, the chat template included."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return hashlib.sha256(
        canonical_json([rules, tokenizer.eos_token, tokenizer.bos_token, tokenizer.chat_template])
    ).hexdigest()


def load_tokenizer(location: str | Path, **options: str) -> PreTrainedTokenizerBase:
    """A tokenizer by hub id or folder; `options` are transformers' own.

    Raises:
        ValueError: it has no tokens but added ones: where files are missing, transformers makes an
            empty one of many kinds; or a file is a Git LFS pointer.
        Exception: it cannot be had; transformers and tokenizers raise whatever they like.
    """
    if Path(location).is_dir():
        require_no_pointers(Path(location))
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        location, **NO_CODE, **options
    )
    if tokenizer.get_vocab().keys() <= {
        *tokenizer.all_special_tokens,
        *tokenizer.get_added_vocab(),
    }:
        raise ValueError(
            "no tokens are there: copy tokenizer.json, or what stands in its place, from where the"
            " model is from"
        )
    return tokenizer


def load_verified_tokenizer(folder: Path, expected_hash: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer that was saved beside a cache or a model.

    Raises:
        InputError: it cannot be loaded, or would not make the same tokens (another release of the
            libraries may rebuild a tokenizer by other rules).
    """
    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:
        raise InputError(
            f"{folder}: the tokenizer cannot be loaded ({load_error_reason(error)})"
        ) from error
    found = tokenizer_hash(tokenizer)
    if found != expected_hash:
        raise InputError(
            f"{folder}: these libraries make other tokens with it ({found!r}) than it was recorded"
            f" with ({expected_hash!r}); install the releases of transformers and tokenizers that"
            " the record names (run.json, or cache inspect --json)"
        )
    return tokenizer

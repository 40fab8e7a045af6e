"""Loading of tokenizers, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cache.sealed_json import canonical_json
from pipeline.errors import InputError
from pipeline.pretrained.files import require_no_pointers
from pipeline.pretrained.load import NO_CODE, load_error_reason, read_once


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a tokenizer's rules and chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return hashlib.sha256(
        canonical_json([rules, tokenizer.eos_token, tokenizer.bos_token, tokenizer.chat_template])
    ).hexdigest()


def load_tokenizer(location: str | Path, **options: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer, by hub id or folder; `options` are those of transformers.

    Raises:
        ValueError: a file is a Git LFS pointer, or the tokenizer is empty, which transformers
            allows if files are missing.
        Exception: it cannot be loaded; transformers and tokenizers raise various errors.
    """
    if Path(location).is_dir():
        require_no_pointers(Path(location))
    tokenizer: PreTrainedTokenizerBase = (
        read_once(AutoTokenizer, Path(location) / options["gguf_file"])
        if options.keys() == {"gguf_file"}
        else AutoTokenizer.from_pretrained(location, **NO_CODE, **options)
    )
    if tokenizer.get_vocab().keys() <= {
        *tokenizer.all_special_tokens,
        *tokenizer.get_added_vocab(),
    }:
        raise ValueError(
            "the tokenizer is empty; copy the missing file, such as tokenizer.json, from the"
            " model's source"
        )
    return tokenizer


def load_saved_tokenizer(location: str | Path, **options: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer after saving and loading it once.

    Training and generation load it from a cache or run, where it may differ from the original:
    from a GGUF file, transformers makes Qwen2's tokenizer without its Unicode normalisation, from
    saved files with it.

    Raises:
        Exception: as `load_tokenizer`.
    """
    with tempfile.TemporaryDirectory() as folder:
        load_tokenizer(location, **options).save_pretrained(folder)
        return load_tokenizer(folder)


def load_verified_tokenizer(folder: Path, expected_hash: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a cache or run, and compare it with the recorded hash.

    Raises:
        InputError: it cannot be loaded, or differs, as other library releases may rebuild it.
    """
    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:
        raise InputError(
            f"{folder}: the tokenizer cannot be loaded ({load_error_reason(error)})"
        ) from error
    actual_hash = tokenizer_hash(tokenizer)
    if actual_hash != expected_hash:
        raise InputError(
            f"{folder}: the tokenizer's hash is {actual_hash!r}, not the recorded"
            f" {expected_hash!r}; install the recorded releases of transformers and tokenizers (see"
            " run.json, or `cache inspect --json`)"
        )
    return tokenizer

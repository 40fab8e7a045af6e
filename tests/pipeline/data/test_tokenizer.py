"""Verification of the tokenizers of caches and models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase, Qwen2Config

from pipeline.data.student_tokens import load_student_tokenizer
from pipeline.data.tokenizer import load_verified_tokenizer, tokenizer_hash
from pipeline.errors import InputError
from pipeline.teacher.source import find_teacher


def test_a_saved_tokenizer_is_verified(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert (
        load_verified_tokenizer(tmp_path, tokenizer_hash(tokenizer)).get_vocab()
        == tokenizer.get_vocab()
    )
    with pytest.raises(InputError, match="not the recorded '0000"):
        load_verified_tokenizer(tmp_path, "0" * 64)


@pytest.mark.parametrize("added", [False, True], ids=["nothing", "added-tokens"])
def test_an_empty_tokenizer_is_refused(added: bool, tmp_path: Path) -> None:
    """Transformers silently makes an empty tokenizer if the vocabulary file is missing."""
    Qwen2Config().save_pretrained(tmp_path)
    if added:
        flags = dict.fromkeys(["lstrip", "normalized", "rstrip", "single_word", "special"], False)
        settings = {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": {"7": {"content": "<tool_call>", **flags}},
        }
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="the tokenizer is empty"):
        load_student_tokenizer(str(tmp_path))
    with pytest.raises(InputError, match="the tokenizer is empty"):
        load_verified_tokenizer(tmp_path, "0" * 64)
    with pytest.raises(InputError, match="the tokenizer is empty"):
        find_teacher(str(tmp_path)).load_tokenizer()


def test_a_damaged_tokenizer_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_verified_tokenizer(tmp_path, "0" * 64)


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_verified_tokenizer(tmp_path / "nowhere", "0" * 64)

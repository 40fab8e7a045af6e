"""A tokenizer that was saved beside a cache or a model is the same one, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from pipeline.data.tokenizer import load_same_tokenizer, tokenizer_hash
from pipeline.errors import InputError


def test_a_saved_one_is_the_same_and_another_one_is_refused(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert load_same_tokenizer(tmp_path, tokenizer_hash(tokenizer)).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(InputError, match="these libraries make other tokens"):
        load_same_tokenizer(tmp_path, "0" * 64)


def test_one_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_same_tokenizer(tmp_path / "nowhere", "0" * 64)

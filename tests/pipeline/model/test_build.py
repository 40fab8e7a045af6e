"""What is named as a student is a GPT-Neo with its weights, or is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GPTNeoConfig, Qwen2Config

from pipeline.errors import InputError
from pipeline.model import build_student
from pipeline.model.build import student_body


def test_a_name_that_stands_for_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a size"):
        student_body("enormous", "sequence", 10)
    with pytest.raises(InputError, match="its configuration cannot be read"):
        student_body(str(tmp_path), "sequence", 10)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    Qwen2Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a qwen2, not a GPT-Neo"):
        student_body(str(tmp_path), "sequence", 10)


@pytest.mark.parametrize("content", [None, b"", b"not weights", bytes(80)])
def test_weights_that_are_not_there_or_damaged_are_said_so(content: bytes | None, tmp_path: Path) -> None:
    shape = {"vocab_size": 10, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}
    GPTNeoConfig(**shape, bos_token_id=0, eos_token_id=1).save_pretrained(tmp_path)
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="its weights could not be loaded"):
        build_student(
            str(tmp_path), vocab_size=20, longest=30, teacher_hidden_size=12, condition="sequence", eos_token_id=1, pad_token_id=0
        )

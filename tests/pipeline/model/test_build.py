"""A student is a GPT-Neo with all of its weights; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTNeoConfig, GPTNeoForCausalLM, T5Config

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student, student_body
from pipeline.pretrained.load import load_weights
from pipeline.shapes import BridgeShape


def test_an_unknown_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a size"):
        student_body("enormous", "sequence", 10)
    with pytest.raises(InputError, match=r"no config\.json in this folder"):
        student_body(str(tmp_path), "sequence", 10)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a t5, not a causal LM of transformers"):
        student_body(str(tmp_path), "sequence", 10)


@pytest.mark.parametrize("content", [None, b"", b"not weights", bytes(80)])
def test_missing_and_damaged_weights_are_refused(content: bytes | None, tmp_path: Path) -> None:
    shape = {
        "vocab_size": 10,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
    }
    GPTNeoConfig(**shape, bos_token_id=0, eos_token_id=1).save_pretrained(tmp_path)
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="its weights could not be loaded"):
        build_student(
            str(tmp_path),
            vocab_size=20,
            longest=30,
            teacher_hidden_size=12,
            condition="sequence",
            eos_token_id=1,
            pad_token_id=0,
        )


def prefix_tensors(file: Path, prefix: str) -> None:
    tensors = load_file(file)
    save_file(
        {prefix + name: value for name, value in tensors.items()}, file, metadata={"format": "pt"}
    )


@pytest.mark.parametrize("condition", ["sequence", "prompt"])
def test_pretrained_weights_under_other_names_are_refused(condition: str, tmp_path: Path) -> None:
    shape = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global", "local"], 1]],
    }
    GPTNeoForCausalLM(GPTNeoConfig(**shape, bos_token_id=0, eos_token_id=1)).save_pretrained(
        tmp_path
    )
    options: dict[str, Any] = {
        "vocab_size": 20,
        "longest": 30,
        "teacher_hidden_size": 12,
        "condition": condition,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bridge": BridgeShape(cross_heads=2),
    }
    build_student(str(tmp_path), **options)
    prefix_tensors(tmp_path / "model.safetensors", "_orig_mod.")
    with pytest.raises(
        InputError,
        match=(
            r"weights could not be loaded \(tensors missing: .*; unexpected: _orig_mod\.transformer"
        ),
    ):
        build_student(str(tmp_path), **options)


def test_a_saved_student_is_loaded_whole_or_refused(tmp_path: Path) -> None:
    student = build_student(
        "tiny",
        vocab_size=20,
        longest=30,
        teacher_hidden_size=12,
        condition="none",
        eos_token_id=1,
        pad_token_id=0,
    )
    student.save_pretrained(tmp_path)
    loaded = load_weights(LLMModulesForCausalLM, tmp_path)
    assert all(
        torch.equal(value, loaded.state_dict()[name])
        for name, value in student.state_dict().items()
    )
    prefix_tensors(tmp_path / "model.safetensors", "module.")
    with pytest.raises(ValueError, match=r"^tensors missing: body"):
        load_weights(LLMModulesForCausalLM, tmp_path)

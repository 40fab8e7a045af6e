"""Students with the weights of a pretrained GPT-Neo, and texts longer than its positions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoConfig, GPTNeoModel

from tests.pipeline.model.students import WIDTH, make_student, random_inputs

POSITIONS = 32


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt-neo")
    config = GPTNeoConfig(
        vocab_size=60,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=POSITIONS,
    )
    GPTNeoModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("condition", "unused"), [("sequence", ("wte.", "wpe.")), ("none", ("wte.",))]
)
def test_pretrained_weights_are_loaded(
    condition: str, unused: tuple[str, ...], pretrained: Path
) -> None:
    weights = load_file(pretrained / "model.safetensors")
    student = make_student(str(pretrained), longest=POSITIONS, condition=condition)
    loaded = student.body.state_dict()
    used = [name for name in weights if not name.startswith(unused)]
    assert len(used) > 20
    assert [name for name in used if not torch.equal(loaded[name], weights[name])] == []


@torch.no_grad()
def test_states_beyond_gpt_neos_positions_are_read(pretrained: Path) -> None:
    student, inputs = make_student(str(pretrained), longest=70), random_inputs(1, 70, 0)
    changed = {**inputs, "hidden_states": inputs["hidden_states"].clone()}
    changed["hidden_states"][:, 1] += torch.randn(WIDTH)
    before, after = student(**inputs).logits, student(**changed).logits
    assert not torch.allclose(before[:, 69], after[:, 69], atol=1e-6)


def test_a_student_of_tokens_gets_new_positions_after_the_pretrained_ones(
    pretrained: Path,
) -> None:
    student = make_student(str(pretrained), longest=70, condition="none")
    positions = student.body.wpe.weight
    learned = load_file(pretrained / "model.safetensors")["wpe.weight"]
    assert len(positions) >= 70
    assert torch.equal(positions[:POSITIONS], learned)
    assert positions[POSITIONS:].std() > 0
    assert student(input_ids=torch.zeros(1, 70, dtype=torch.long)).logits.shape[1] == 70

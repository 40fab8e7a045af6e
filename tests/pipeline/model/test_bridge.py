"""Bridges of all shapes are causal, trainable, and read the layers that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM
from tests.pipeline.model.students import VOCABULARY, WIDTH, make_student

SHAPES: list[dict[str, Any]] = [
    {"layers": (3, -1), "cross_heads": 4},
    {"layers": (5, 3, 5), "cross_layers": 3, "adapter_size": 9},
    {"cross_layers": 0},
    {"cross_layers": 1, "gate": "scalar"},
    {"gate": "static"},
    {"gate": "none"},
]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random_states(student: LLMModulesForCausalLM, tokens: int, seed: int = 0) -> torch.Tensor:
    """Return hidden states of one example, of all layers that the student reads."""
    width = len(student.config.teacher_layers) * WIDTH
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(seed))


@every_shape
@torch.no_grad()
def test_every_bridge_is_causal(shape: dict[str, Any]) -> None:
    student = make_student(**shape)
    states_BTD, other_BTD = random_states(student, 20), random_states(student, 20, seed=1)
    changed_BTD = torch.cat([states_BTD[:, :12], other_BTD[:, 12:]], dim=1)
    before, after = (student(hidden_states=states).logits for states in (states_BTD, changed_BTD))
    torch.testing.assert_close(before[:, :12], after[:, :12], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-4)


@every_shape
@torch.no_grad()
def test_every_bridge_reads_all_its_layers(shape: dict[str, Any]) -> None:
    student = make_student(**shape)
    states_BTD, other_BTD = random_states(student, 20), random_states(student, 20, seed=1)
    logits = student(hidden_states=states_BTD).logits
    for layer in range(len(student.config.teacher_layers)):
        changed_BTD, place = states_BTD.clone(), slice(layer * WIDTH, (layer + 1) * WIDTH)
        changed_BTD[..., place] = other_BTD[..., place]
        assert not torch.allclose(student(hidden_states=changed_BTD).logits, logits, atol=1e-5)


@every_shape
def test_every_bridge_trains_all_weights_and_is_loaded_as_saved(
    shape: dict[str, Any], tmp_path: Path
) -> None:
    student = make_student(**shape)
    states_BTD = random_states(student, 20)
    labels_BT = torch.randint(0, VOCABULARY, (1, 20))
    student(hidden_states=states_BTD, labels=labels_BT).loss.backward()
    untrained = [
        name
        for name, weights in student.named_parameters()
        if weights.grad is None or not weights.grad.any()
    ]
    assert untrained == []
    student.save_pretrained(tmp_path)
    loaded = LLMModulesForCausalLM.from_pretrained(tmp_path).eval()
    logits = student(hidden_states=states_BTD).logits
    assert torch.equal(loaded(hidden_states=states_BTD).logits, logits)


@torch.no_grad()
def test_ffn_and_proj_read_the_layer_of_the_last_cross_attention() -> None:
    student = make_student(layers=(3, -1))
    states_BTD = random_states(student, 6)
    bridge = student.bridge
    assert bridge is not None
    for layer in bridge.layers:  # shut the gates: FFN and proj are left
        torch.nn.init.constant_(layer.gate.bias, -1e4)
    first_BTD, last_BTD = states_BTD.clone(), states_BTD.clone()
    first_BTD[..., :WIDTH], last_BTD[..., WIDTH:] = 0, 0
    output = bridge(states_BTD)
    torch.testing.assert_close(bridge(first_BTD), output)
    assert not torch.allclose(bridge(last_BTD), output, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"layers": (1, 2, 3)}, "one for each of the 2 cross-attention layers"),
        ({"cross_heads": 7}, "--cross-heads 7: do not divide"),
    ],
)
def test_impossible_bridges_are_refused(shape: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make_student(**shape)

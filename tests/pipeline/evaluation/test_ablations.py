"""Ablations change the named inputs or gates of a student and nothing else; cost in operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from pipeline.evaluation.ablations import (
    MismatchedStates,
    ShuffledStates,
    ZeroedStates,
    causal_attention,
    shut_gates,
)
from pipeline.evaluation.cost import reading_flops, training_flops
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import BridgeShape


def student(
    cross_attention: str = "causal", condition: str = "sequence", gate: str = "channel"
) -> LLMModulesForCausalLM:
    torch.manual_seed(0)
    model = build_student(
        "tiny",
        vocab_size=60,
        longest=64,
        teacher_hidden_size=12,
        condition=condition,
        eos_token_id=1,
        pad_token_id=0,
        bridge=BridgeShape(cross_attention=cross_attention, gate=gate),
    )
    for layer in model.bridge.layers:
        if layer.gate is not None:
            nn.init.normal_(layer.gate.weight, std=0.3)
    return model.eval()


def batch(
    lengths: list[int], seed: int = 0, prompts: list[int] | None = None
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    ids = torch.randint(2, 60, mask.shape, generator=generator)
    states_mask = (
        mask
        if prompts is None
        else torch.tensor([[1] * n + [0] * (max(prompts) - n) for n in prompts])
    )
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": torch.where(mask.bool(), ids, -100),
        "hidden_states": (
            torch.randn(*states_mask.shape, 12, generator=generator) * states_mask[..., None]
        ),
    }
    return inputs if prompts is None else inputs | {"states_mask": states_mask}


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_shuffling_permutes_states_and_leaves_padding(lengths: list[int], seed: int) -> None:
    inputs = batch(lengths, seed)
    shuffled = ShuffledStates(nn.Identity())(inputs)["hidden_states"]
    for row, length in enumerate(lengths):
        own = inputs["hidden_states"][row]
        assert sorted(map(tuple, own[:length].tolist())) == sorted(
            map(tuple, shuffled[row, :length].tolist())
        )
        assert torch.equal(own[length:], shuffled[row, length:])


def test_mismatched_states_are_those_of_the_next_example_repeated_to_length() -> None:
    inputs = batch([5, 3])
    changed = MismatchedStates(nn.Identity())(inputs)["hidden_states"]
    states = inputs["hidden_states"]
    assert torch.equal(changed[0], states[1][[0, 1, 2, 0, 1]])
    assert torch.equal(changed[1, :3], states[0, :3])


def test_one_of_several_layers_can_be_zeroed() -> None:
    states = ZeroedStates(nn.Identity(), layer=1, layers=3)(batch([4]))["hidden_states"]
    assert not states[..., 4:8].any() and states[..., :4].all() and states[..., 8:].all()
    assert not ZeroedStates(nn.Identity())(batch([4]))["hidden_states"].any()


@torch.no_grad()
@pytest.mark.parametrize("gate", ["channel", "scalar"])
def test_shut_gates_equal_gates_with_large_negative_biases(gate: str) -> None:
    model, inputs = student(gate=gate), batch([9, 6])
    open_loss = model(**inputs).loss
    with shut_gates(model):
        shut = model(**inputs).loss
    assert torch.equal(model(**inputs).loss, open_loss) and shut != open_loss
    for layer in model.bridge.layers:
        assert layer.gate is not None
        nn.init.zeros_(layer.gate.weight)
        nn.init.constant_(layer.gate.bias, -100.0)
    torch.testing.assert_close(model(**inputs).loss, shut)


@torch.no_grad()
def test_a_student_of_prompts_with_shut_gates_ignores_the_states() -> None:
    model = student(condition="prompt")
    one, other = (batch([7], seed, prompts=[5]) for seed in (0, 1))
    other |= {name: one[name] for name in ("input_ids", "labels")}
    assert model(**one).loss != model(**other).loss
    with shut_gates(model):
        assert torch.equal(model(**one).loss, model(**other).loss)


@torch.no_grad()
def test_a_leaking_student_under_causal_attention_reads_no_later_token() -> None:
    model, inputs = student("bidirectional"), batch([12])
    later = {**inputs, "hidden_states": inputs["hidden_states"].clone()}
    later["hidden_states"][:, 8:] = 3.0
    assert not torch.allclose(
        model(**inputs).logits[:, :8], model(**later).logits[:, :8], atol=1e-4
    )
    with causal_attention(model):
        torch.testing.assert_close(model(**inputs).logits[:, :8], model(**later).logits[:, :8])
        twin = student("causal")
        torch.testing.assert_close(model(**inputs).logits, twin(**inputs).logits)
    assert not torch.allclose(model(**inputs).logits, twin(**inputs).logits, atol=1e-4)


def test_training_takes_six_operations_per_weight_and_token() -> None:
    model, inputs = student(), batch([32])
    operations = training_flops(model, inputs)
    weights = sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
    assert 5.9 * weights < operations < 8 * weights
    assert all(weight.grad is None for weight in model.parameters())


def test_reading_takes_two_operations_per_weight_and_token() -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.layer = nn.Embedding(4, 16), nn.Linear(16, 24)

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
            return self.layer(self.embed(input_ids))  # type: ignore[no-any-return]

    assert reading_flops(Body(), 10, torch.device("cpu")) == 2 * 16 * 24


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_operations_of_attention_do_not_depend_on_shared_key_heads(
    kv_heads: int,
) -> None:
    """Queries by keys and weights by values take `2 T` operations per token and width each."""
    heads, width, tokens = 4, 16, 24

    class Body(nn.Module):
        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
            query = torch.randn(1, heads, tokens, width)
            key, value = (torch.randn(1, kv_heads, tokens, width) for _ in range(2))
            return scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    assert reading_flops(Body(), tokens, torch.device("cpu")) == 2 * 2 * tokens * heads * width

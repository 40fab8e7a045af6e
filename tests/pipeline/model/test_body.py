"""GPT-Neo with fused attention compared with transformers' own."""

from __future__ import annotations

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, GPTNeoConfig, GPTNeoModel
from transformers.models.gpt_neo.modeling_gpt_neo import (
    GPT_NEO_ATTENTION_CLASSES,
    GPTNeoSelfAttention,
)

from pipeline.model import build_student
from pipeline.model.body import GPTNeoBody
from pipeline.model.self_attention import FusedSelfAttention


@pytest.fixture(scope="module")
def bodies() -> list[GPTNeoModel]:
    """Return bodies of the same weights, with eager and with fused attention."""
    models: list[GPTNeoModel] = []
    for kind, attention in ((GPTNeoModel, "eager"), (GPTNeoBody, "sdpa")):
        config = GPTNeoConfig(
            vocab_size=10,
            hidden_size=16,
            num_layers=4,
            num_heads=2,
            attention_types=[[["global", "local"], 2]],
            max_position_embeddings=200,
            window_size=8,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation=attention,
        )
        models.append(kind(config).eval())
    models[1].load_state_dict(models[0].state_dict())
    return models


def read(body: GPTNeoModel, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    last: torch.Tensor = body(inputs_embeds=states, attention_mask=mask).last_hidden_state
    return last


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=3),
    left=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_states_and_gradients_equal_those_of_eager_attention(
    bodies: list[GPTNeoModel], lengths: list[int], left: bool, masked: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, longest - length if left else 0 : longest if left else length] = 1
    if not masked:
        mask[:] = 1
    states, slope = (torch.randn(len(lengths), longest, 16, generator=generator) for _ in range(2))
    results = []
    for body in bodies:
        body.zero_grad()
        inputs = states.clone().requires_grad_()
        output = read(body, inputs, mask if masked else None)
        (output * slope * mask[..., None]).sum().backward()
        assert inputs.grad is not None
        weights = [weight.grad for weight in body.parameters() if weight.grad is not None]
        results.append([output[mask.bool()], inputs.grad[mask.bool()], *weights])
    assert len(results[0]) == len(results[1]) > 20
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, atol=2e-4, rtol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_pieces_equal_one_pass_of_eager_attention(
    bodies: list[GPTNeoModel], pieces: list[int], padding: int, seed: int
) -> None:
    tokens = sum(pieces) + padding
    states = torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[0, :padding] = 0
    plain = read(bodies[0], states, mask)
    past, start, outputs = DynamicCache(), 0, []
    for length in [pieces[0] + padding, *pieces[1:]]:
        end = start + length
        output = bodies[1](
            inputs_embeds=states[:, start:end], attention_mask=mask[:, :end], past_key_values=past
        )
        outputs.append(output.last_hidden_state)
        start = end
    torch.testing.assert_close(
        torch.cat(outputs, 1)[:, padding:], plain[:, padding:], atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_a_shared_mask_equals_one_per_example(bodies: list[GPTNeoModel]) -> None:
    attention = bodies[1].h[1].attn.attention
    states = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, 20, 20, dtype=torch.bool).tril()
    mask[..., :3] = False
    own, _ = attention(states, attention_mask=mask.expand(2, -1, -1, -1))
    common, _ = attention(states, attention_mask=mask)
    assert attention.window == 8
    assert torch.equal(own[:, 3:], common[:, 3:])
    without, _ = attention(states)
    assert not torch.allclose(own[:, 3:], without[:, 3:])


def test_dropout_is_applied_only_in_training() -> None:
    config = GPTNeoConfig(
        vocab_size=10,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        attention_dropout=0.5,
        resid_dropout=0.0,
        embed_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    body, states = GPTNeoBody(config), torch.randn(1, 30, 16)
    first, second = (body(inputs_embeds=states).last_hidden_state for _ in range(2))
    assert not torch.allclose(first, second)
    body.eval()
    first, second = (body(inputs_embeds=states).last_hidden_state for _ in range(2))
    assert torch.equal(first, second)


def test_a_student_of_long_examples_stores_no_masks_and_learns_from_all_tokens() -> None:
    longest = 6000
    gc.collect()
    student = build_student(
        "tiny",
        vocab_size=20,
        longest=32_768,
        teacher_hidden_size=12,
        condition="sequence",
        eos_token_id=1,
        pad_token_id=0,
    )
    assert not [name for name, _ in student.named_buffers()]
    states = torch.randn(1, longest, 12, requires_grad=True)
    labels = torch.full((1, longest), -100)
    labels[0, -1] = 7
    student(
        hidden_states=states, labels=labels, attention_mask=torch.ones_like(labels), loss_only=True
    ).loss.backward()
    assert states.grad is not None
    gradient = states.grad[0].norm(dim=-1)
    assert (gradient[:-1] > 0).all()
    assert gradient[-1] == 0


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    config = GPTNeoConfig(
        hidden_size=10, num_layers=1, num_heads=4, attention_types=[[["global"], 1]]
    )
    with pytest.raises(ValueError, match="4 heads do not divide"):
        GPTNeoBody(config)


def test_transformers_is_not_patched() -> None:
    assert FusedSelfAttention not in GPT_NEO_ATTENTION_CLASSES.values()
    attention = GPTNeoModel(GPTNeoConfig(num_layers=1, attention_types=[[["global"], 1]])).h[0].attn
    assert type(attention.attention) is GPTNeoSelfAttention

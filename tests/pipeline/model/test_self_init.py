"""Cross-attention that starts as the self-attention of its block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, build_student, init_from_self_attention
from pipeline.shapes import BridgeShape
from tests.pipeline.model.decoders import save_decoder
from tests.pipeline.model.prompt_students import random_inputs


def student(folder: Path, width: int, **shape: Any) -> LLMModulesForCausalLM:
    torch.manual_seed(0)
    return build_student(
        str(folder),
        vocab_size=40,
        longest=60,
        teacher_hidden_size=width,
        condition="prompt",
        bridge=BridgeShape(**{"cross_heads": 2, "cross_every": 1} | shape),
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt-neo", "gpt2", "qwen2", "llama", "mistral", "gemma3"])
def test_a_layer_attends_as_its_block_and_its_gate_stays_closed(
    family: str, tmp_path: Path
) -> None:
    folder = save_decoder(family, tmp_path)
    model = student(folder, width=16)
    inputs = random_inputs(2, 8, 5, 0) | {"hidden_states": torch.randn(2, 5, 16)}
    before = model(**inputs).logits
    init_from_self_attention(model)
    torch.testing.assert_close(model(**inputs).logits, before)
    layer = list(model.bridge.layers)[1]
    assert layer.query.weight.std() > 0.1  # random ones are smaller


@torch.no_grad()
def test_a_llama_layer_equals_self_attention_without_positions(tmp_path: Path) -> None:
    model = student(save_decoder("llama", tmp_path), width=16)
    init_from_self_attention(model)
    attention, layer = model.body.layers[2].self_attn, list(model.bridge.layers)[2]
    states = torch.randn(2, 6, 16)
    neutral = (torch.ones(1, 6, 8), torch.zeros(1, 6, 8))  # cosine and sine of no rotation
    expected, _ = attention(states, position_embeddings=neutral, attention_mask=None)
    layer.states_norm, layer.teacher_norm = torch.nn.Identity(), torch.nn.Identity()
    layer.adapter, layer.gate = torch.nn.Identity(), None
    attended = layer(states, *layer.keys_and_values(states), None, causal=True) - states
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_another_width_passes_a_semi_orthogonal_map(tmp_path: Path) -> None:
    model = student(save_decoder("qwen2", tmp_path), width=24)
    init_from_self_attention(model)
    layer = next(iter(model.bridge.layers))
    attention = model.body.layers[0].self_attn
    for own, shared in ((layer.key, attention.k_proj), (layer.value, attention.v_proj)):
        copied = own.weight[: len(shared.weight)]
        torch.testing.assert_close(copied @ copied.T, shared.weight @ shared.weight.T)


@pytest.mark.parametrize(
    ("family", "shape", "problem"),
    [
        ("qwen2", {"cross_heads": 4}, "has 2 heads; pass --cross-heads 2"),
        ("bloom", {}, "no query, key, value and output .* in BloomBlock"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    family: str, shape: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    model = student(save_decoder(family, tmp_path), 16, **shape)
    with pytest.raises(InputError, match=f"--cross-init self: .*{problem}"):
        init_from_self_attention(model)

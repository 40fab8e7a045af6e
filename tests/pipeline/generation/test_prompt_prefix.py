"""A prefix that all prompts share: read once, where that changes no prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from pipeline.generation.prompt_prefix import PromptPrefix
from pipeline.generation.prompts import left_padded
from tests.pipeline.model.decoders import DECODERS

CPU = torch.device("cpu")
SHARED = [7, 3, 9, 12, 30, 2, 8, 8, 21, 5, 17, 4, 33, 6, 11, 19, 28, 14]
RESTS = [[5], [9, 2, 31, 8], [9, 9, 4, 1, 1, 3, 25]]
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 20,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}


def causal_lm(config: hf.PreTrainedConfig) -> Any:
    """Return a model with random weights that differ enough for its predictions to."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_predictions_after_a_shared_prefix_are_those_of_each_prompt_alone(family: str) -> None:
    model = causal_lm(DECODERS[family]())
    prompts = [SHARED + rest for rest in RESTS]
    prefix = PromptPrefix(model, prompts, max_new_tokens=4)
    assert len(prefix) == len(SHARED)
    ids_BT, mask_BT = left_padded(prompts, 0, CPU, first=len(prefix))
    for _ in range(2):  # the cache of one batch does not change that of the next
        logits_BV = model(
            ids_BT[:, len(prefix) :],
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(-1) - 1).clamp(min=0)[:, len(prefix) :],
            past_key_values=prefix.kv(len(prompts)),
        ).logits[:, -1]
        for logits_V, prompt in zip(logits_BV, prompts, strict=True):
            alone_V = model(torch.tensor([prompt])).logits[0, -1]
            torch.testing.assert_close(logits_V, alone_V, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        *(DECODERS[family]() for family in ("gpt-neo", "mistral", "gemma3", "bloom")),
        hf.MptConfig(d_model=16, n_heads=2, n_layers=2, vocab_size=40),
        hf.OpenAIGPTConfig(vocab_size=40, n_embd=16, n_layer=2, n_head=2),
    ],
    ids=lambda config: config.model_type,
)
def test_models_that_padding_or_a_cache_would_change_share_nothing(
    config: hf.PreTrainedConfig,
) -> None:
    prefix = PromptPrefix(causal_lm(config), [SHARED + rest for rest in RESTS], 4)
    assert len(prefix) == 0
    assert prefix.kv(3) is None


def test_rotary_embeddings_by_length_share_only_within_their_limit() -> None:
    config = DECODERS["llama"]()
    config.rope_parameters = LONG_ROPE
    model = causal_lm(config)
    assert not len(PromptPrefix(model, [[*SHARED, 1], [*SHARED, 2]], max_new_tokens=4))
    assert len(PromptPrefix(model, [[*SHARED, 1], [*SHARED, 2]], max_new_tokens=1))


def test_a_configured_cache_is_left_to_the_model() -> None:
    model = causal_lm(DECODERS["llama"]())
    model.generation_config.cache_implementation = "static"
    assert not len(PromptPrefix(model, [[*SHARED, 1], [*SHARED, 2]], 4))


@settings(max_examples=50, deadline=None)
@given(
    shared=st.integers(0, 24),
    rests=st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4),
)
def test_a_prefix_is_common_and_leaves_a_token_of_each_prompt(
    shared: int, rests: list[list[int]]
) -> None:
    first = [(7 * place) % 40 for place in range(shared)]
    prompts = [prompt for rest in rests if (prompt := first + rest)]
    prefix = PromptPrefix(causal_lm(DECODERS["llama"]()), prompts, 4)
    common = 0
    while prompts and all(prompt[: common + 1] == prompts[0][: common + 1] for prompt in prompts):
        if common + 1 >= min(map(len, prompts)):
            break
        common += 1
    assert len(prefix) == (common if common >= 16 else 0)


def test_padding_stands_after_the_prefix() -> None:
    ids_BT, mask_BT = left_padded([[1, 2, 3], [1, 2, 4, 5, 6]], 9, CPU, first=2)
    assert ids_BT.tolist() == [[1, 2, 9, 9, 3], [1, 2, 4, 5, 6]]
    assert mask_BT.tolist() == [[1, 1, 0, 0, 1], [1, 1, 1, 1, 1]]

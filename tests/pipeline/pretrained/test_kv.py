"""Which decoders continue from keys and values alone, and which look back a limited distance."""

from __future__ import annotations

import pytest
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from pipeline.pretrained.kv import kv_obstacle, sees_all_tokens


@pytest.mark.parametrize("config", [Qwen2Config(), LlamaConfig(), GPT2Config()])
def test_full_attention_sees_all_tokens(config: PreTrainedConfig) -> None:
    assert kv_obstacle(config) is None
    assert sees_all_tokens(config)


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2),
        MistralConfig(sliding_window=64),
        Gemma3TextConfig(),
        GPTNeoConfig(),
    ],
)
def test_windows_do_not_but_need_only_keys_and_values(config: PreTrainedConfig) -> None:
    assert kv_obstacle(config) is None
    assert not sees_all_tokens(config)


def test_a_recurrent_state_is_an_obstacle() -> None:
    assert kv_obstacle(MambaConfig()) is not None
    assert not sees_all_tokens(MambaConfig())

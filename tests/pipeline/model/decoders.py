"""Tiny decoders of several families with random weights, to build students on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

_ROTARY: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_NAMES = {"num_layers": 4, "num_heads": 2, "hidden_size": 16, "vocab_size": 40}

DECODERS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "gpt-neo": lambda: hf.GPTNeoConfig(
        **_NAMES,
        attention_types=[[["global", "local"], 2]],
        max_position_embeddings=64,
        window_size=8,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=4,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=1,
    ),
    "qwen2": lambda: hf.Qwen2Config(**_ROTARY, tie_word_embeddings=True),
    "llama": lambda: hf.LlamaConfig(**_ROTARY, tie_word_embeddings=False),
    "mistral": lambda: hf.MistralConfig(**_ROTARY, sliding_window=4),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **_ROTARY,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "bloom": lambda: hf.BloomConfig(
        vocab_size=40, hidden_size=16, n_layer=4, n_head=2, bos_token_id=1, eos_token_id=1
    ),
}
"""One family each with learned and with rotary positions, with local attention, with ALiBi."""

_SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
}
MORE_DECODERS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "qwen3": lambda: hf.Qwen3Config(**_ROTARY, head_dim=8),
    "mixtral": lambda: hf.MixtralConfig(**_ROTARY, num_local_experts=4, num_experts_per_tok=2),
    "falcon": lambda: hf.FalconConfig(**_SMALL),
    "opt": lambda: hf.OPTConfig(**_SMALL, ffn_dim=24, word_embed_proj_dim=16),
    "gemma3 with images": lambda: hf.Gemma3Config(
        text_config=DECODERS["gemma3"]().to_dict(),
        vision_config=_SMALL | {"intermediate_size": 24, "image_size": 28, "patch_size": 14},
        image_token_index=5,
        boi_token_index=6,
        eoi_token_index=7,
        mm_tokens_per_image=4,
    ),
}
"""Families with experts, parallel blocks, offset positions, and a second list of four blocks."""


def save_decoder(family: str, folder: Path) -> Path:
    """Save a decoder of a family with weights large enough to matter; return its folder."""
    torch.manual_seed(3)
    model = hf.AutoModelForCausalLM.from_config((DECODERS | MORE_DECODERS)[family]())
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.2)
    model.save_pretrained(folder)
    return folder


def save_with_tokenizer(model: hf.PreTrainedModel, tokenizer: Path, folder: Path) -> Path:
    """Save a decoder with a copy of another one's tokenizer files; return its folder."""
    for file in tokenizer.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(folder)
    return folder

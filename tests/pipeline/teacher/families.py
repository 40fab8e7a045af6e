"""Tiny teachers of many families, with random weights that are all far from zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedConfig, PreTrainedModel

TOKENS = 60
_SIZE: dict[str, Any] = {
    "vocab_size": TOKENS,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
_LLAMA = _SIZE | {"num_key_value_heads": 1}
_GPT2: dict[str, Any] = {"vocab_size": TOKENS, "n_embd": 16, "n_layer": 3, "n_head": 2}
_MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 4}
_TOWER: dict[str, Any] = {
    "num_hidden_layers": 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
}
_PICTURES = _TOWER | {"image_size": 16, "patch_size": 8}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [3.0] * 4,
    "original_max_position_embeddings": 8,
}
Make = Callable[[], PreTrainedConfig]

DECODERS: dict[str, Make] = {
    "qwen2": lambda: hf.Qwen2Config(**_LLAMA),
    "llama": lambda: hf.LlamaConfig(**_LLAMA),
    "mistral": lambda: hf.MistralConfig(**_LLAMA, sliding_window=4),
    "gpt2": lambda: hf.GPT2Config(**_GPT2),
    "gpt_neo": lambda: hf.GPTNeoConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        num_layers=4,
        num_heads=2,
        attention_types=[[["global", "local"], 2]],
        window_size=4,
    ),
    "opt": lambda: hf.OPTConfig(**(_SIZE | {"ffn_dim": 24, "word_embed_proj_dim": 16})),
    "bloom": lambda: hf.BloomConfig(vocab_size=TOKENS, hidden_size=16, n_layer=3, n_head=2),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=TOKENS, hidden_size=16, num_hidden_layers=3, num_attention_heads=2
    ),
    "falcon_alibi": lambda: hf.FalconConfig(
        vocab_size=TOKENS, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, alibi=True
    ),
    "mpt": lambda: hf.MptConfig(
        vocab_size=TOKENS, d_model=16, n_layers=3, n_heads=2, max_seq_len=64
    ),
    "gemma2": lambda: hf.Gemma2Config(**_LLAMA, head_dim=8, sliding_window=4),
    "gemma3": lambda: hf.Gemma3TextConfig(**_LLAMA, head_dim=8, sliding_window=4),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_SIZE),
    "gptj": lambda: hf.GPTJConfig(**_GPT2, rotary_dim=4),
    "mixtral": lambda: hf.MixtralConfig(**_LLAMA, num_local_experts=2),
}
"""Families whose prefixes can be shared."""

UNSHARED: dict[str, Make] = {
    "mamba": lambda: hf.MambaConfig(
        vocab_size=TOKENS, hidden_size=16, state_size=4, num_hidden_layers=3
    ),
    "mamba2": lambda: hf.Mamba2Config(
        vocab_size=TOKENS,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=3,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        chunk_size=4,
    ),
    "jamba": lambda: hf.JambaConfig(
        **_LLAMA,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "bamba": lambda: hf.BambaConfig(**_LLAMA, **_MAMBA2, attn_layer_indices=[1]),
    "falcon_h1": lambda: hf.FalconH1Config(**_LLAMA, **_MAMBA2, mamba_d_ssm=32),
    "granite_hybrid": lambda: hf.GraniteMoeHybridConfig(
        **_LLAMA,
        **_MAMBA2,
        layer_types=["mamba", "attention", "mamba"],
        num_local_experts=0,
        shared_intermediate_size=24,
    ),
    "recurrent_gemma": lambda: hf.RecurrentGemmaConfig(
        **_LLAMA, lru_width=16, attention_window_size=4
    ),
    "qwen3_next": lambda: hf.Qwen3NextConfig(
        **_LLAMA,
        head_dim=8,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
    "lfm2": lambda: hf.Lfm2Config(**_LLAMA, layer_types=["conv", "full_attention", "conv"]),
    "long_rope": lambda: hf.Phi3Config(
        **_LLAMA,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        max_position_embeddings=64,
        rope_parameters=_LONG_ROPE,
        original_max_position_embeddings=8,
    ),
    "dynamic_rope": lambda: hf.LlamaConfig(
        **_LLAMA,
        max_position_embeddings=8,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
}
"""Families whose prefixes cannot be shared; for length-dependent RoPE, those of long texts."""

ENCODERS: dict[str, Make] = {
    "bert": lambda: hf.BertConfig(**_SIZE),
    "roberta": lambda: hf.RobertaConfig(**_SIZE, pad_token_id=1),
    "xlm_roberta": lambda: hf.XLMRobertaConfig(**_SIZE, pad_token_id=1),
    "camembert": lambda: hf.CamembertConfig(**_SIZE, pad_token_id=1),
    "longformer": lambda: hf.LongformerConfig(
        **_SIZE, pad_token_id=1, attention_window=[4, 4, 4], max_position_embeddings=66
    ),
    "mpnet": lambda: hf.MPNetConfig(**_SIZE, pad_token_id=1),
    "esm": lambda: hf.EsmConfig(
        **_SIZE, pad_token_id=1, mask_token_id=2, position_embedding_type="absolute"
    ),
    "distilbert": lambda: hf.DistilBertConfig(
        vocab_size=TOKENS, dim=16, n_layers=3, n_heads=2, hidden_dim=24
    ),
    "albert": lambda: hf.AlbertConfig(**_SIZE, embedding_size=8),
    "deberta": lambda: hf.DebertaV2Config(
        **_SIZE, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "modernbert": lambda: hf.ModernBertConfig(
        **_SIZE,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        local_attention=4,
        global_attn_every_n_layers=2,
    ),
}

WITH_TOWERS: dict[str, Make] = {
    "llava": lambda: hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_PICTURES),
        text_config=hf.Qwen2Config(**_LLAMA),
        image_token_index=55,
    ),
    "gemma3": lambda: hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**_PICTURES),
        text_config=hf.Gemma3TextConfig(**_LLAMA, head_dim=8),
        image_token_index=55,
        mm_tokens_per_image=4,
    ),
    "qwen2_audio": lambda: hf.Qwen2AudioConfig(
        audio_config={
            "d_model": 16,
            "encoder_layers": 3,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "num_mel_bins": 8,
        },
        text_config=hf.Qwen2Config(**_LLAMA),
        audio_token_index=55,
    ),
    "qwen2_vl": lambda: hf.Qwen2VLConfig(
        vision_config={
            "depth": 3,
            "embed_dim": 16,
            "num_heads": 2,
            "hidden_size": 16,
            "patch_size": 8,
        },
        text_config=_LLAMA
        | {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [1, 1, 2],
            }
        },
        image_token_id=55,
        video_token_id=56,
        vision_start_token_id=57,
        vision_end_token_id=58,
    ),
    "llama4": lambda: hf.Llama4Config(
        vision_config=_PICTURES
        | {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16},
        text_config=_LLAMA
        | {
            "head_dim": 8,
            "intermediate_size_mlp": 24,
            "num_local_experts": 2,
            "attention_chunk_size": 4,
        },
    ),
}
"""Families with an image or audio tower of the same shape as the text decoder."""


def tiny_body(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a base model with random weights, none of them at its initial value."""
    torch.manual_seed(0)
    body: PreTrainedModel = hf.AutoModel.from_config(config).eval()
    with torch.no_grad():
        for weight in body.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return body


@torch.no_grad()
def plain_pass(body: PreTrainedModel, ids: list[int]) -> list[torch.Tensor]:
    """Return the states `[T, d_teacher]` of all layers of one text, by a plain call."""
    # A short text resets dynamic rotary embeddings, which adapt to the longest text so far.
    body(input_ids=torch.tensor([ids[:1]]))
    output = body(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [states[0] for states in output.hidden_states]

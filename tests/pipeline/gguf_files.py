"""GGUF files of a small Qwen2."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from transformers import Qwen2Config, Qwen2Model

TOKENS = [
    *(chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256)]),
    *(chr(256 + n) for n in range(68)),
    "ab",
    "cd",
]
CONFIG = Qwen2Config(
    vocab_size=len(TOKENS) + 3,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=2048,
    rope_theta=10000.0,
    tie_word_embeddings=False,
)
NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "layers.": "blk.",
}


def write_gguf(
    path: Path, body: Qwen2Model, *, parts: int = 1, more: dict[str, torch.Tensor] | None = None
) -> Path:
    """Write a GGUF file; with `parts`, only the first part's tensors."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*TOKENS, *special])
    writer.add_token_types(
        [gguf.TokenType.NORMAL] * len(TOKENS) + [gguf.TokenType.CONTROL] * len(special)
    )
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(len(TOKENS) + 2)
    writer.add_pad_token_id(len(TOKENS))
    if parts > 1:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", parts)
    tensors = body.state_dict() | (more or {})
    for name, value in list(tensors.items())[: len(tensors) // parts]:
        name = "output_norm.weight" if name == "norm.weight" else name
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, value.numpy())
    writer.add_tensor("output.weight", body.state_dict()["embed_tokens.weight"].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

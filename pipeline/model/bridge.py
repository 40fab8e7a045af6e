"""From the teacher's hidden states to the input of GPT-Neo (arXiv 2502.08213, section 3)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Cache

from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.cross_attention import EnhancedCrossAttention, visible_tokens


class Bridge(nn.Module):
    """Projects teacher states to the student's width and lets Enhanced Cross-Attention layers read on in them.

    `h → norm → pre_proj → u`; an FFN of `u` starts the student's states; each cross-attention layer adds to them, with
    keys and values from `u`; a linear `proj(u)` is added at the end. Where several teacher layers are read, each has a `u` of
    its own: each cross-attention layer looks at one of them, the rest reads that of the last. The leading LayerNorm is not
    in the paper: it puts teacher layers, whose values differ a hundredfold in size, on one scale, and tames the few huge rows
    of middle layers.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        teacher_size, size = config.teacher_hidden_size, config.hidden_size
        self.causal = config.cross_attention == "causal"
        self.reads, self.layer_of_path = config.reads or [], config.layer_of_path
        count = len(config.teacher_layers)
        self.norm = nn.ModuleList(nn.LayerNorm(teacher_size) for _ in range(count))
        self.pre_proj = nn.ModuleList(nn.Linear(teacher_size, teacher_size) for _ in range(count))
        self.proj = nn.Linear(teacher_size, size)
        self.ffn = nn.Sequential(
            nn.Linear(teacher_size, config.intermediate_size),
            nn.LayerNorm(config.intermediate_size),
            nn.GELU(),
            nn.Linear(config.intermediate_size, size),
        )
        first = int(config.body.num_layers)
        self.layers = nn.ModuleList(EnhancedCrossAttention(config, first + i) for i in range(config.cross_layers))

    def forward(
        self, hidden_BTD: torch.Tensor, attention_mask_BK: torch.Tensor | None = None, past: Cache | None = None
    ) -> torch.Tensor:
        """Input embeddings for GPT-Neo, `[B, T, d_student]`.

        Args:
            hidden_BTD: teacher hidden states, `[B, T, layers * d_teacher]`.
            attention_mask_BK: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: key-value cache of the tokens before these; extended in place.
        """
        tokens = hidden_BTD.shape[1]
        visible_B1TK = visible_tokens(attention_mask_BK, tokens, causal=self.causal, device=hidden_BTD.device)
        of_layers = hidden_BTD.chunk(len(self.norm), dim=-1)
        teacher = [
            pre_proj(norm(layer_BTD)) for pre_proj, norm, layer_BTD in zip(self.pre_proj, self.norm, of_layers, strict=True)
        ]
        states_BTS: torch.Tensor = self.ffn(teacher[self.layer_of_path])
        for layer, read in zip(self.layers, self.reads, strict=True):
            states_BTS = states_BTS + layer(states_BTS, teacher[read], visible_B1TK, past)
        embeds_BTS: torch.Tensor = states_BTS + self.proj(teacher[self.layer_of_path])
        return embeds_BTS

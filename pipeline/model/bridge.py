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
    keys and values from `u`; a linear `proj(u)` is added at the end. The leading LayerNorm is not in the paper: it puts
    teacher layers, whose values differ a hundredfold in size, on one scale, and tames the few huge rows of middle layers.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        teacher_size, size = config.teacher_hidden_size, config.hidden_size
        self.causal = config.cross_attention == "causal"
        self.norm = nn.LayerNorm(teacher_size)
        self.pre_proj = nn.Linear(teacher_size, teacher_size)
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
            hidden_BTD: teacher hidden states.
            attention_mask_BK: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: key-value cache of the tokens before these; extended in place.
        """
        tokens = hidden_BTD.shape[1]
        visible_B1TK = visible_tokens(attention_mask_BK, tokens, causal=self.causal, device=hidden_BTD.device)
        teacher_BTD = self.pre_proj(self.norm(hidden_BTD))
        states_BTS: torch.Tensor = self.ffn(teacher_BTD)
        for layer in self.layers:
            states_BTS = states_BTS + layer(states_BTS, teacher_BTD, visible_B1TK, past)
        embeds_BTS: torch.Tensor = states_BTS + self.proj(teacher_BTD)
        return embeds_BTS

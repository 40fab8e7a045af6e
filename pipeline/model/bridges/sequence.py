"""`sequence`: teacher states replace embeddings (arXiv 2502.08213, section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Cache

from pipeline.model.bridges.interface import (
    Bridge,
    CrossLayers,
    GenerationStep,
    StudentInputs,
    require_width,
)
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.visible import visible_tokens


class SequenceBridge(Bridge):
    """Projects teacher states to the student's width; cross-attention layers refine the result.

    `h → norm → pre_proj → u`; an FFN of `u` computes the student's initial states; each
    cross-attention layer adds to them, with keys and values from `u`; a linear `proj(u)` is added
    at the end. Each teacher layer has its own `u`: each cross-attention layer reads one of them,
    FFN and `proj` that of the last. The first LayerNorm is not in the paper: it equalises the
    scales of teacher layers, which differ a hundredfold, and of the few huge rows of middle
    layers.
    """

    replaces_embeddings = True

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        teacher_size, size = config.teacher_hidden_size, config.hidden_size
        self.width = config.states_width
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
        self.layers = CrossLayers(config, config.cross_layers)

    def body_inputs(self, inputs: StudentInputs) -> dict[str, Any]:
        """Return the states that replace the embeddings."""
        if inputs.hidden_states is None:
            raise ValueError(
                f"this student reads hidden_states [B, T, {self.width}]; none were given"
            )
        return {"inputs_embeds": self(inputs.hidden_states, inputs.attention_mask, inputs.past)}

    def generation_inputs(self, step: GenerationStep) -> dict[str, Any]:
        """Read and return the states of the tokens that the key-value cache lacks.

        Raises:
            ValueError: there is no reader.
        """
        if step.reader is None:
            raise ValueError(
                "this student reads a teacher's hidden states; pass generate(..., reader=...)"
            )
        states_BKD = step.reader.read(step.input_ids, step.attention_mask, step.seen)
        return {"hidden_states": states_BKD}

    def forward(
        self,
        hidden_BTD: torch.Tensor,
        attention_mask_BK: torch.Tensor | None = None,
        past: Cache | None = None,
    ) -> torch.Tensor:
        """Return input embeddings for the decoder, `[B, T, d_student]`.

        Args:
            hidden_BTD: teacher hidden states, `[B, T, layers * d_teacher]`.
            attention_mask_BK: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: key-value cache of the preceding tokens; extended in place.
        """
        visible_B1TK = visible_tokens(
            attention_mask_BK, hidden_BTD.shape[1], causal=self.causal, device=hidden_BTD.device
        )
        of_layers = require_width(hidden_BTD, self.width).chunk(len(self.norm), dim=-1)
        teacher = [
            pre_proj(norm(layer_BTD))
            for pre_proj, norm, layer_BTD in zip(self.pre_proj, self.norm, of_layers, strict=True)
        ]
        states_BTS: torch.Tensor = self.ffn(teacher[self.layer_of_path])
        for layer, index in zip(self.layers, self.reads, strict=True):
            keys, values = layer.keys_and_values(teacher[index])
            if past is not None:
                keys, values = past.update(keys, values, layer.layer_index)
            states_BTS = states_BTS + layer(states_BTS, keys, values, visible_B1TK)
        embeds_BTS: torch.Tensor = states_BTS + self.proj(teacher[self.layer_of_path])
        return embeds_BTS

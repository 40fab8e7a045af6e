"""`prompt`: GPT-Neo reads its own tokens, and cross-attention inside it the prompt's states."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import Cache

from pipeline.model.bridges.interface import (
    Bridge,
    CrossLayers,
    GenerationStep,
    StudentInputs,
    positions,
    require_tokens,
    require_width,
)
from pipeline.model.configuration import LLMModulesConfig


class PromptBridge(Bridge):
    """Enhanced Cross-Attention inside GPT-Neo to the teacher's states of the whole prompt.

    A layer precedes some of the blocks. The states of each teacher layer pass a LayerNorm first, as
    in `SequenceBridge`. Keys and values are computed once: with a key-value cache only the first
    call needs the states.
    """

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        self.width = config.states_width
        self.reads, self.blocks = config.reads or [], config.cross_blocks or []
        self.norm = nn.ModuleList(
            nn.LayerNorm(config.teacher_hidden_size) for _ in config.teacher_layers
        )
        self.layers = CrossLayers(config, config.cross_layers)

    def body_inputs(self, inputs: StudentInputs) -> dict[str, Any]:
        """Return the tokens, and the cross-attention before each block."""
        ids_BT = require_tokens(inputs.input_ids)
        return {
            "input_ids": ids_BT,
            "position_ids": positions(ids_BT, inputs.attention_mask),
            "before_blocks": self._before_blocks(
                inputs.hidden_states, inputs.states_mask, inputs.past
            ),
        }

    def generation_inputs(self, step: GenerationStep) -> dict[str, Any]:
        """Return the states of the prompts at the first step, and their mask at every step."""
        return {
            "hidden_states": None if step.seen else step.hidden_states,
            "states_mask": step.states_mask,
        }

    def _before_blocks(
        self,
        hidden_BKD: torch.Tensor | None,
        states_mask_BK: torch.Tensor | None,
        past: Cache | None,
    ) -> dict[int, Callable[[torch.Tensor], torch.Tensor]]:
        visible_B11K = None if states_mask_BK is None else states_mask_BK.bool()[:, None, None, :]
        normed_BKD: list[torch.Tensor] = []
        if hidden_BKD is not None:
            of_layers = require_width(hidden_BKD, self.width).chunk(len(self.norm), dim=-1)
            normed_BKD = [norm(layer) for norm, layer in zip(self.norm, of_layers, strict=True)]
        before_blocks: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        for block, layer, number in zip(self.blocks, self.layers, self.reads, strict=True):
            keys_values = _cached(past, layer.layer_index)
            if keys_values is None:
                if not normed_BKD:
                    raise ValueError(
                        "this student reads a prompt's hidden_states before its first token; none"
                        " were given"
                    )
                keys_values = layer.keys_and_values(normed_BKD[number])
                if past is not None:
                    keys_values = past.update(*keys_values, layer.layer_index)
            key_BHKC, value_BHKC = keys_values
            before_blocks[block] = partial(
                layer,
                key_BHKC=key_BHKC,
                value_BHKC=value_BHKC,
                visible_B1TK=visible_B11K,
                causal=False,
            )
        return before_blocks


def _cached(past: Cache | None, layer_index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a layer's keys and values from a key-value cache, None if it has none."""
    if past is None or layer_index >= len(past.layers) or not past.get_seq_length(layer_index):
        return None
    layer: Any = past.layers[layer_index]
    return layer.keys, layer.values

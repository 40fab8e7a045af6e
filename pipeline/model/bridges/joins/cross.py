"""`cross`: Enhanced Cross-Attention before some of the student's blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import Cache

from pipeline.model.bridges.interface import CrossLayers
from pipeline.model.bridges.joins.interface import NO_STATES, BodyInputs, Join, PromptInputs
from pipeline.model.configuration import LLMModulesConfig


class CrossJoin(Join):
    """Enhanced Cross-Attention to the states of the whole prompt.

    Keys and values are computed once: with a key-value cache only the first call needs the states.
    """

    def __init__(self, config: LLMModulesConfig, layers: CrossLayers) -> None:
        """Take the layers, which belong to the bridge."""
        super().__init__()
        self._layers = [layers]  # in a list: the bridge registers their weights
        self.reads, self.blocks = config.reads or [], config.cross_blocks or []

    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Add the attention before each of its blocks."""
        mask_BK = prompt.states_mask
        visible_B11K = None if mask_BK is None else mask_BK.bool()[:, None, None, :]
        for block, layer, number in zip(self.blocks, self._layers[0], self.reads, strict=True):
            keys_values = _cached(inputs.past, layer.layer_index)
            if keys_values is None:
                if prompt.layers is None:
                    raise ValueError(NO_STATES)
                keys_values = layer.keys_and_values(prompt.layers[number])
                if inputs.past is not None:
                    keys_values = inputs.past.update(*keys_values, layer.layer_index)
            key_BHKC, value_BHKC = keys_values
            inputs.before_blocks[block] = partial(
                layer,
                key_BHKC=key_BHKC,
                value_BHKC=value_BHKC,
                visible_B1TK=visible_B11K,
                causal=False,
            )


def _cached(past: Cache | None, layer_index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return a layer's keys and values from a key-value cache, None if it has none."""
    if past is None or layer_index >= len(past.layers) or not past.get_seq_length(layer_index):
        return None
    layer: Any = past.layers[layer_index]
    return layer.keys, layer.values

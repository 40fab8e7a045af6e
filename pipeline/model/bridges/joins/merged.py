"""`merged`: states as further keys and values of self-attention (arXiv 2512.14856)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import DynamicCache

from pipeline.model.bridges.interface import positions
from pipeline.model.bridges.joins.interface import (
    NO_STATES,
    BodyInputs,
    Join,
    PromptInputs,
    states_before,
)
from pipeline.model.bridges.joins.projection import Output
from pipeline.model.configuration import LLMModulesConfig


class MergedJoin(Join):
    """Each block attends to its tokens and to the states in one softmax.

    The keys and values of states are put in the key-value cache before those of the first token, so
    any decoder with such a cache can read them, and they are computed once. They have no positions.
    """

    is_cached = True

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__()
        body = config.body
        self.heads = int(getattr(body, "num_key_value_heads", None) or body.num_attention_heads)
        self.channels = int(
            getattr(body, "head_dim", None) or config.hidden_size // body.num_attention_heads
        )
        width = self.heads * self.channels
        self.key = nn.ModuleList(
            nn.Linear(config.teacher_hidden_size, width) for _ in range(config.blocks)
        )
        self.value = nn.ModuleList(
            Output(config.teacher_hidden_size, width) for _ in range(config.blocks)
        )
        for value in self.value:
            value.starts_closed = True  # type: ignore[assignment]  # an Output

    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Fill the cache at the first step, and mask the states at every step."""
        if inputs.past is None or not inputs.past.get_seq_length():
            if prompt.layers is None:
                raise ValueError(NO_STATES)
            inputs.past = DynamicCache() if inputs.past is None else inputs.past
            for block, (key, value) in enumerate(zip(self.key, self.value, strict=True)):
                inputs.past.update(
                    self._heads(key(prompt.layers[-1])),
                    self._heads(value(prompt.layers[-1])),
                    block,
                )
            count = prompt.layers[-1].shape[1]
        else:
            count = prompt.cached_states
        mask_BK = states_before(inputs, prompt, count)
        inputs.position_ids = positions(inputs.embeds, mask_BK[:, count:])
        inputs.attention_mask = mask_BK

    def _heads(self, states_BKW: torch.Tensor) -> torch.Tensor:
        split_BHKC: torch.Tensor = states_BKW.unflatten(-1, (self.heads, self.channels))
        return split_BHKC.transpose(1, 2)

"""The tokens that all prompts begin with, read once for all batches of answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from pipeline.pretrained.kv import sees_all_tokens

_SHORTEST = 16
"""Fewest tokens that are worth a forward pass of their own."""


class PromptPrefix:
    """Keys and values of the first tokens of all prompts, such as a system prompt."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        """Read the prefix; it is empty if it is short, or the model cannot continue from it.

        Args:
            model: a causal LM.
            prompts: the tokens of each; at least one token of each remains after the prefix.
        """
        columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
        shared = [first for first, *_ in takewhile(lambda ids: len({*ids}) == 1, columns)]
        worthwhile = len(shared) >= _SHORTEST and sees_all_tokens(model.config)
        self._ids: list[int] = shared if worthwhile else []
        self._blocks: list[tuple[torch.Tensor, torch.Tensor]] = []
        if self._ids:
            self._read(model)

    def __len__(self) -> int:
        return len(self._ids)

    def kv(self, rows: int) -> Cache | None:
        """Return a new key-value cache of the prefix for a batch, None if it is empty."""
        if not self._blocks:
            return None
        past = DynamicCache()
        for block, of_block in enumerate(self._blocks):
            key_BHPC, value_BHPC = (kept.expand(rows, -1, -1, -1) for kept in of_block)
            past.update(key_BHPC, value_BHPC, block)
        return past

    @torch.inference_mode()
    def _read(self, model: Any) -> None:
        past = DynamicCache()
        ids_1P = torch.tensor([self._ids], device=model.device)
        model(ids_1P, past_key_values=past, use_cache=True, logits_to_keep=1)
        layers: list[Any] = past.layers
        self._blocks = [(layer.keys, layer.values) for layer in layers]

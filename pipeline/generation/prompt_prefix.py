"""The tokens that all prompts begin with, read once for all batches of answers."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from itertools import takewhile
from typing import Any

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from pipeline.pretrained.kv import sees_all_tokens
from pipeline.teacher.shape import sharing_obstacle

_SHORTEST = 16
"""Fewest tokens that are worth a forward pass of their own."""


class PromptPrefix:
    """Keys and values of the first tokens of all prompts, such as a system prompt."""

    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], max_new_tokens: int
    ) -> None:
        """Read the prefix; it is empty if it is short, or the model cannot continue from it.

        Args:
            model: a causal LM.
            prompts: the tokens of each; at least one token of each remains after the prefix.
            max_new_tokens: longest answer.
        """
        self._ids: list[int] = []
        self._blocks: list[tuple[torch.Tensor, torch.Tensor]] = []
        longest = max(map(len, prompts), default=0) + max_new_tokens
        shared = _shared_tokens(prompts)
        if len(shared) >= _SHORTEST and _continues_before_padding(model, longest):
            self._read(shared, model)

    def __len__(self) -> int:
        return len(self._ids)

    def kv(self, rows: int) -> Cache | None:
        """Return a new key-value cache of the prefix for a batch, None if it is empty."""
        if not self._ids:
            return None
        past = DynamicCache()
        for block, of_block in enumerate(self._blocks):
            key_BHPC, value_BHPC = (kept.expand(rows, -1, -1, -1) for kept in of_block)
            past.update(key_BHPC, value_BHPC, block)
        return past

    @torch.inference_mode()
    def _read(self, ids: list[int], model: Any) -> None:
        past = DynamicCache()
        model(torch.tensor([ids], device=model.device), past_key_values=past, use_cache=True)
        if past.get_seq_length() == len(ids):  # else the model has a cache of its own
            layers: list[Any] = past.layers
            self._ids, self._blocks = ids, [(layer.keys, layer.values) for layer in layers]


def _shared_tokens(prompts: Sequence[list[int]]) -> list[int]:
    """Return the tokens that all prompts begin with, but at most all but one of any."""
    if not prompts:
        return []
    pairs = zip(min(prompts), max(prompts), strict=False)  # of all, these two differ the most
    shared = [first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return shared[: min(map(len, prompts)) - 1]


def _continues_before_padding(model: PreTrainedModel, longest: int) -> bool:
    """Return whether a model reads a prefix, padding and the rest as it reads them without padding.

    Args:
        model: a causal LM.
        longest: length of the longest text in tokens.
    """
    return (
        sharing_obstacle(model.config, longest) is None
        and sees_all_tokens(model.config)
        and "position_ids" in signature(model.forward).parameters
        and getattr(model.generation_config, "cache_implementation", None) is None
    )

"""Whole examples in the teacher's tokens, with a state for each token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from cache import Cache
from pipeline.batches.examples import CachedExamples, Features
from pipeline.data.transcript import transcript_of


class WholeExamples(CachedExamples):
    """Whole examples of a cache."""

    def __init__(self, cache: Cache, indices: Sequence[int], layers: Sequence[int]) -> None:
        """Take the indices of examples in the cache, and the cached layers to read."""
        super().__init__(cache, layers)
        self._indices = list(indices)

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example at each place."""
        return self._indices

    @cached_property
    def lengths(self) -> list[int]:
        """Number of tokens of the example at each place."""
        lengths: list[int] = self.cache.lengths[self._indices].tolist()
        return lengths

    def learned_bytes(self, place: int) -> int:
        """Return the length in bytes of an example's answers, or of its plain text."""
        return transcript_of(self.cache, self._indices[place]).learned_bytes

    def at(self, place: int) -> Features:
        """Return the example at a place."""
        example, states = self._states(self._indices[place])
        return {
            "row_id": example.row_id,
            "input_ids": torch.from_numpy(example.input_ids.astype(np.int64)),
            "loss_mask": torch.from_numpy(np.array(example.loss_mask)),
            **states,
        }

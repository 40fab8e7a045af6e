"""A cache as a `torch.utils.data` data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from cache import Cache


class Features(TypedDict, total=False):
    """One example for the student; `hidden_states` is there where a layer was asked for."""

    row_id: str
    input_ids: torch.Tensor
    loss_mask: torch.Tensor
    hidden_states: torch.Tensor


class CachedFeatures(Dataset[Features]):
    """Some examples of a cache with one layer's hidden states, or with none for a student that reads tokens."""

    def __init__(self, cache: Cache, indices: Sequence[int], layer: int | None) -> None:
        """Choose examples by their indices in the cache; `layer` None reads no hidden states."""
        self._cache, self._indices, self._layer = cache, list(indices), layer

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Features:
        """The tensors `input_ids` `[T]`, `loss_mask` `[T]` and `hidden_states` `[T, d_teacher]` bfloat16."""
        example = self._cache.example(self._indices[index], () if self._layer is None else (self._layer,))
        features: Features = {
            "row_id": example.row_id,
            "input_ids": torch.from_numpy(example.input_ids.astype(np.int64)),
            "loss_mask": torch.from_numpy(example.loss_mask),
        }
        if self._layer is not None:
            bits_TD = np.ascontiguousarray(example.hidden_states[self._layer]).view(np.uint16)
            features["hidden_states"] = torch.from_numpy(bits_TD.copy()).view(torch.bfloat16)
        return features

"""A cache as a `torch.utils.data` data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from cache import Cache
from cache.codecs import EXACT

_MOST_THREADS = 8


class Features(TypedDict, total=False):
    """One example for the student; where a layer was asked for, its states as they are stored.

    `hidden_states` where they are stored exactly; `coded_states` and what belongs to them where they are still coded.
    """

    row_id: str
    input_ids: torch.Tensor
    loss_mask: torch.Tensor
    hidden_states: torch.Tensor
    coded_states: torch.Tensor
    token_scales: torch.Tensor
    exact_rows: torch.Tensor
    exact_states: torch.Tensor


class CachedFeatures(Dataset[Features]):
    """Some examples of a cache with one layer's hidden states, or with none for a student that reads tokens.

    Coded states stay coded: they are decoded where the student is (see `pipeline.batches.decoder`). Entropy decoding lets go
    of the interpreter's lock, so the examples of a batch are read by as many threads as there are cores.
    """

    def __init__(self, cache: Cache, indices: Sequence[int], layer: int | None) -> None:
        """Choose examples by their indices in the cache; `layer` None reads no hidden states."""
        self._cache, self._indices, self._layer = cache, list(indices), layer
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        self._is_coded = layer is not None and cache.codecs[layer].name != EXACT

    def __len__(self) -> int:
        return len(self._indices)

    def __getitems__(self, indices: Sequence[int]) -> list[Features]:
        """The examples of a batch; `torch.utils.data` asks for them together."""
        if not self._is_coded or len(indices) == 1:
            return [self[index] for index in indices]
        if self._threads is None or self._threads[0] != os.getpid():  # threads do not survive a fork
            self._threads = os.getpid(), ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "decode")
        return list(self._threads[1].map(self.__getitem__, indices))

    @property
    def is_remote(self) -> bool:
        """Whether the cache is in an object store."""
        return self._cache.place.is_remote

    def __getitem__(self, index: int) -> Features:
        """One example; `~index` is the same one without a loss: read, and not learned from.

        The tensors `input_ids` `[T]` and `loss_mask` `[T]`, and of the hidden states

        either `hidden_states` `[T, d_teacher]` bfloat16, or `coded_states` `[T, d_teacher]` int8 or int16 with `token_scales`
        `[T]` float32 where the codec has them, `exact_rows` `[K]` and `exact_states` `[K, d_teacher]` bfloat16 likewise.
        """
        learned, index = index >= 0, max(index, ~index)
        example = self._cache.coded_example(self._indices[index], () if self._layer is None else (self._layer,))
        features: Features = {
            "row_id": example.row_id,
            "input_ids": torch.from_numpy(example.input_ids.astype(np.int64)),
            "loss_mask": torch.from_numpy(np.array(example.loss_mask) & learned),
        }
        if self._layer is None:
            return features
        coded = example.hidden_states[self._layer]
        if not self._is_coded:
            features["hidden_states"] = torch.from_numpy(np.array(coded.values)).view(torch.bfloat16)
            return features
        features["coded_states"] = torch.from_numpy(np.array(coded.values))
        if coded.scales is not None:
            features["token_scales"] = torch.from_numpy(np.array(coded.scales))
        if coded.exact_rows is not None and coded.exact_values is not None:
            features["exact_rows"] = torch.from_numpy(np.array(coded.exact_rows))
            features["exact_states"] = torch.from_numpy(np.array(coded.exact_values)).view(torch.bfloat16)
        return features

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_threads": None}

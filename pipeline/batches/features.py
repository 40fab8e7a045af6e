"""A cache as a `torch.utils.data` data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache import Cache
from cache.codecs import EXACT, CodedStates

_MOST_THREADS = 8


Features = dict[str, Any]
"""One example for the student: `row_id`, `input_ids` `[T]` and `loss_mask` `[T]`, and the states of each layer `n` that was asked
for, counted from 0, as they are stored. Either `hidden_states.n` `[T, d_teacher]` bfloat16, or `coded_states.n`
`[T, d_teacher]` int8 or int16 with `token_scales.n` `[T]` float32 where the codec has them, and `exact_rows.n` `[K]` and
`exact_states.n` `[K, d_teacher]` bfloat16 likewise."""


class CachedFeatures(Dataset[Features]):
    """Some examples of a cache with some layers' hidden states, or with none for a student that reads tokens.

    Coded states stay coded: they are decoded where the student is (see `pipeline.batches.decoder`). Entropy decoding lets go
    of the interpreter's lock, so the examples of a batch are read by as many threads as there are cores.
    """

    def __init__(self, cache: Cache, indices: Sequence[int], layers: Sequence[int]) -> None:
        """Choose examples by their indices in the cache, and cached layers."""
        self._cache, self._indices, self._layers = cache, list(indices), tuple(layers)
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        self._is_coded = any(cache.codecs[layer].name != EXACT for layer in layers)

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
        """One example; `~index` is the same one without a loss: read, and not learned from."""
        learned, index = index >= 0, max(index, ~index)
        example = self._cache.coded_example(self._indices[index], self._layers)
        features: Features = {
            "row_id": example.row_id,
            "input_ids": torch.from_numpy(example.input_ids.astype(np.int64)),
            "loss_mask": torch.from_numpy(np.array(example.loss_mask) & learned),
        }
        for number, layer in enumerate(self._layers):
            exact = self._cache.codecs[layer].name == EXACT
            states = states_features(example.hidden_states[layer], exact=exact)
            features |= {f"{name}.{number}": values for name, values in states.items()}
        return features

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_threads": None}


def states_features(coded: CodedStates, *, exact: bool) -> dict[str, torch.Tensor]:
    """A layer's states as tensors, their names without the layer's number; `exact` where the codec codes nothing."""
    if exact:
        return {"hidden_states": torch.from_numpy(np.array(coded.values)).view(torch.bfloat16)}
    states = {"coded_states": torch.from_numpy(np.array(coded.values))}
    if coded.scales is not None:
        states["token_scales"] = torch.from_numpy(np.array(coded.scales))
    if coded.exact_rows is not None and coded.exact_values is not None:
        states["exact_rows"] = torch.from_numpy(np.array(coded.exact_rows))
        states["exact_states"] = torch.from_numpy(np.array(coded.exact_values)).view(torch.bfloat16)
    return states

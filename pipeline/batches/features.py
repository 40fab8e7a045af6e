"""A cache as a `torch.utils.data` data set."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache import Cache
from cache.codecs import EXACT, CodedStates
from cache.example import CodedExample
from pipeline.data.transcript import transcript_of

_MOST_THREADS = 8


Features = dict[str, Any]
"""One example for the student: `row_id`, `input_ids` `[T]` and `loss_mask` `[T]`, and the states of
each layer `n` that was asked for, counted from 0, as they are stored. Either `hidden_states.n` `[T,
d_teacher]` bfloat16, or `coded_states.n` `[T, d_teacher]` int8 or int16 with `token_scales.n` `[T]`
float32 where the codec has them, and `exact_rows.n` `[K]` and `exact_states.n` `[K, d_teacher]`
bfloat16 likewise. Where the states are those of a prompt, and not of the tokens beside them,
`states_mask` of ones tells how many they are."""


class CachedExamples(Dataset[Features], ABC):
    """Something to learn from at each place, read from a cache: whole examples, or their answers.

    Coded states stay coded: they are decoded where the student is (see `pipeline.batches.decoder`).
    Entropy decoding lets go of the interpreter's lock, so what makes a batch is read by as many
    threads as there are cores."""

    def __init__(self, cache: Cache, layers: Sequence[int]) -> None:
        """Read some cached layers, or none for a student that reads tokens."""
        self.cache, self.layers = cache, tuple(layers)
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        self._is_coded = any(cache.codecs[layer].name != EXACT for layer in layers)

    @property
    @abstractmethod
    def indices(self) -> list[int]:
        """Index in the cache of the example at each place."""

    @property
    @abstractmethod
    def lengths(self) -> list[int]:
        """Tokens that the student reads at each place."""

    @property
    def sizes(self) -> list[int]:
        """Tokens that a batch counts at each place."""
        return self.lengths

    @abstractmethod
    def at(self, place: int) -> Features:
        """What stands at a place."""

    @abstractmethod
    def learned_bytes(self, place: int) -> int:
        """Bytes of UTF-8 of what is to be learned at a place, where that is what an assistant says,
        or plain text.

        Raises:
            InputError: the cache keeps no texts of this program's making.
        """

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, places: Sequence[int]) -> list[Features]:
        """What makes a batch; `torch.utils.data` asks for it together."""
        if not self._is_coded or len(places) == 1:
            return [self[place] for place in places]
        if (
            self._threads is None or self._threads[0] != os.getpid()
        ):  # threads do not survive a fork
            self._threads = (
                os.getpid(),
                ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "decode"),
            )
        return list(self._threads[1].map(self.__getitem__, places))

    def __getitem__(self, place: int) -> Features:
        """What stands at a place; at `~place` the same without a loss: read, and not learned
        from."""
        features = self.at(max(place, ~place))
        return (
            features
            if place >= 0
            else features | {"loss_mask": torch.zeros_like(features["loss_mask"])}
        )

    @property
    def is_remote(self) -> bool:
        """Whether the cache is in an object store."""
        return self.cache.place.is_remote

    def _states(self, index: int) -> tuple[CodedExample, Features]:
        """An example of the cache, and the states of its layers as features."""
        example = self.cache.coded_example(index, self.layers)
        states: Features = {}
        for number, layer in enumerate(self.layers):
            found = states_features(
                example.hidden_states[layer], exact=self.cache.codecs[layer].name == EXACT
            )
            states |= {f"{name}.{number}": values for name, values in found.items()}
        return example, states

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_threads": None}


class CachedFeatures(CachedExamples):
    """Whole examples of a cache."""

    def __init__(self, cache: Cache, indices: Sequence[int], layers: Sequence[int]) -> None:
        """Choose examples by their indices in the cache, and cached layers."""
        super().__init__(cache, layers)
        self._indices = list(indices)

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example at each place."""
        return self._indices

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of the example at each place."""
        lengths: list[int] = self.cache.lengths[self._indices].tolist()
        return lengths

    def learned_bytes(self, place: int) -> int:
        """Bytes of the answers of the example at a place, or of its plain text."""
        return transcript_of(self.cache, self._indices[place]).learned_bytes

    def at(self, place: int) -> Features:
        """The example at a place."""
        example, states = self._states(self._indices[place])
        return {
            "row_id": example.row_id,
            "input_ids": torch.from_numpy(example.input_ids.astype(np.int64)),
            "loss_mask": torch.from_numpy(np.array(example.loss_mask)),
            **states,
        }


def states_features(coded: CodedStates, *, exact: bool) -> dict[str, torch.Tensor]:
    """A layer's states as tensors, their names without the layer's number; `exact` where the codec
    codes nothing."""
    if exact:
        return {"hidden_states": torch.from_numpy(np.array(coded.values)).view(torch.bfloat16)}
    states = {"coded_states": torch.from_numpy(np.array(coded.values))}
    if coded.scales is not None:
        states["token_scales"] = torch.from_numpy(np.array(coded.scales))
    if coded.exact_rows is not None and coded.exact_values is not None:
        states["exact_rows"] = torch.from_numpy(np.array(coded.exact_rows))
        states["exact_states"] = torch.from_numpy(np.array(coded.exact_values)).view(torch.bfloat16)
    return states

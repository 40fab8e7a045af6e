"""The examples of a cache as a `torch.utils.data` data set."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache import Cache
from cache.codecs import EXACT, CodedStates
from cache.example import CodedExample

_MOST_THREADS = 8


Features = dict[str, Any]
"""One example for the student: `row_id`, `input_ids` `[T]`, `loss_mask` `[T]`, and stored states.

`n` is a layer's index in the data set's `layers`. Exact states are `hidden_states.n` `[K,
d_teacher]` bfloat16. Coded ones are `coded_states.n` `[K, d_teacher]` int8 or int16, and if the
codec has them `token_scales.n` `[K]` float32, `exact_rows.n` `[E]` and `exact_states.n` `[E,
d_teacher]` bfloat16. States of a prompt, not of `input_ids`, have a `states_mask`
`[K]` of ones, and with `--join add` `state_places` `[T]`, the index of each token's state in the
prompt, -1 for none."""


@dataclass(frozen=True)
class BatchItem:
    """A member of a batch.

    Attributes:
        place: of the example in the data set.
        counts_in_loss: whether the student learns from it; if not, it only fills a batch, so that
            all processes have the same number of batches.
    """

    place: int
    counts_in_loss: bool = True


class CachedExamples(Dataset[Features], ABC):
    """Examples of a cache as a data set: whole examples, or answers.

    States are decoded on the training device (see `pipeline.batches.decoder`). Entropy decoding
    releases the interpreter's lock, so a batch is read with one thread per core.

    Attributes:
        left_out: number of examples left out because of their length.
    """

    left_out: int = 0

    def __init__(self, cache: Cache, layers: Sequence[int]) -> None:
        """Take the cached layers to read; none for a student that reads tokens."""
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
        """Number of tokens that the student reads at each place."""

    @property
    def sizes(self) -> list[int]:
        """Number of tokens that each place adds to a batch."""
        return self.lengths

    @property
    def occurring(self) -> set[int] | None:
        """Token ids to learn; None: those of the cache's vocabulary."""
        return None

    @property
    def read_tokens(self) -> set[int] | None:
        """Token ids that the student reads; None: those of the cache's vocabulary."""
        return None

    @abstractmethod
    def at(self, place: int) -> Features:
        """Return the example at a place."""

    @abstractmethod
    def learned_bytes(self, place: int) -> int:
        """Return the length in UTF-8 bytes of the text to learn at a place.

        Raises:
            InputError: the cache has no transcripts.
        """

    def __len__(self) -> int:
        return len(self.indices)

    def __getitems__(self, items: Sequence[BatchItem | int]) -> list[Features]:
        """Return the members of a batch; `torch.utils.data` requests them together."""
        if not self._is_coded or len(items) == 1:
            return [self[item] for item in items]
        process = os.getpid()
        if self._threads is None or self._threads[0] != process:  # threads do not survive a fork
            count = min(_MOST_THREADS, os.cpu_count() or 1)
            self._threads = process, ThreadPoolExecutor(count, "decode")
        return list(self._threads[1].map(self.__getitem__, items))

    def __getitem__(self, item: BatchItem | int) -> Features:
        """Return a member of a batch; one given as an int counts in the loss."""
        if isinstance(item, int):
            return self.at(item)
        features = self.at(item.place)
        if item.counts_in_loss:
            return features
        return features | {"loss_mask": torch.zeros_like(features["loss_mask"])}

    @property
    def is_remote(self) -> bool:
        """Whether the cache is in an object store."""
        return self.cache.location.is_remote

    def _states(self, index: int) -> tuple[CodedExample, Features]:
        """Return an example of the cache, and the states of its layers as features."""
        example = self.cache.coded_example(index, self.layers)
        states: Features = {}
        for number, layer in enumerate(self.layers):
            features = states_features(
                example.hidden_states[layer], exact=self.cache.codecs[layer].name == EXACT
            )
            states |= {f"{name}.{number}": values for name, values in features.items()}
        return example, states

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_threads": None}


def states_features(coded: CodedStates, *, exact: bool) -> dict[str, torch.Tensor]:
    """Return a layer's states as tensors, without the layer's number in their names.

    Args:
        coded: the stored states.
        exact: whether the codec is exact.
    """
    if exact:
        return {"hidden_states": torch.from_numpy(np.array(coded.values)).view(torch.bfloat16)}
    states = {"coded_states": torch.from_numpy(np.array(coded.values))}
    if coded.scales is not None:
        states["token_scales"] = torch.from_numpy(np.array(coded.scales))
    if coded.exact_rows is not None and coded.exact_values is not None:
        states["exact_rows"] = torch.from_numpy(np.array(coded.exact_rows))
        states["exact_states"] = torch.from_numpy(np.array(coded.exact_values)).view(torch.bfloat16)
    return states

"""The calibration sample: its examples, their segments, and the split into fit and measurement."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache

_MEASURED_EVERY = 4
"""One of this many segments is measured instead of fitted to."""


def choose_sample(
    lengths: Sequence[int],
    tokens: int,
    seed: int,
    shared: Callable[[int], Mapping[Any, int]] = lambda index: {},
) -> list[int]:
    """Return random examples with at least `tokens` tokens together, ascending, or all examples.

    Args:
        lengths: tokens that each example does not share.
        tokens: wanted size of the sample.
        seed: of the random choice.
        shared: returns the tokens of each prefix of an example; a prefix counts once.
    """
    order = random.Random(seed).sample(range(len(lengths)), len(lengths))
    chosen: list[int] = []
    counted: set[Any] = set()
    total = 0
    for index in order:
        if total >= tokens:
            break
        chosen.append(index)
        prefixes = shared(index)
        total += lengths[index] + sum(prefixes[key] for key in prefixes.keys() - counted)
        counted |= prefixes.keys()
    return sorted(chosen)


def own_lengths(cache: Cache) -> list[int]:
    """Return the tokens of each example of a cache that it does not share."""
    return [
        int(length) - sum(prefix.length for prefix in cache.prefixes_of(index)[-1:])
        for index, length in enumerate(cache.lengths)
    ]


def segments_of(
    cache: Cache,
    indices: Sequence[int],
    layer: int,
    states_of: Callable[[int], npt.NDArray[Any]] | None = None,
) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Return the shared prefixes of some examples, each once, and the rest of each example.

    Args:
        cache: contains the examples.
        indices: of the examples.
        layer: of the hidden states `[T, d_teacher]`.
        states_of: returns an example's states; None: as the cache stores them.

    Raises:
        DamagedCacheError: a shard is damaged.
    """
    shared: dict[tuple[int, int], npt.NDArray[Any]] = {}
    own = []
    for index in indices:
        states_TD = (
            states_of(index) if states_of else cache.example(index, (layer,)).hidden_states[layer]
        )
        start = 0
        for prefix in cache.prefixes_of(index):
            shared.setdefault((prefix.record, prefix.segment), states_TD[start : prefix.length])
            start = prefix.length
        own.append(states_TD[start:])
    return [shared[place] for place in sorted(shared)], own


@dataclass(frozen=True)
class Sample:
    """Hidden states of a layer, split in two.

    Attributes:
        fitted: those that a codec is fitted to, `[N, d_teacher]` bfloat16.
        measured: those that it is measured on, of other segments if there are several.
        measured_lengths: tokens of the segments of `measured`.
    """

    fitted: npt.NDArray[Any]
    measured: npt.NDArray[Any]
    measured_lengths: list[int]


def split_sample(segments: Sequence[npt.NDArray[Any]]) -> Sample:
    """Split segments of text `[T, d_teacher]` into those to fit to and those to measure on."""
    segments = [segment for segment in segments if len(segment)]
    fitted = [segment for index, segment in enumerate(segments) if index % _MEASURED_EVERY != 1]
    measured = segments[1::_MEASURED_EVERY] or segments
    return Sample(np.concatenate(fitted), np.concatenate(measured), list(map(len, measured)))

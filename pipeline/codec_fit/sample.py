"""The calibration sample: which examples, their segments, and the split into fit and measurement."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache import Cache

_HELD_BACK = 4
"""Every so many segments of the sample, one is kept from the fit to measure it with."""


def choose_sample(
    lengths: Sequence[int],
    tokens: int,
    seed: int,
    shared: Callable[[int], Mapping[Any, int]] = lambda index: {},
) -> list[int]:
    """Indices of examples that have at least so many tokens together, ascending; all of them where
    there are not as many.

    Args:
        lengths: tokens that each example has of its own.
        tokens: how many are wanted.
        seed: chooses.
        shared: tokens of each prefix that an example begins with; they count once.
    """
    order = random.Random(seed).sample(range(len(lengths)), len(lengths))
    chosen: list[int] = []
    seen: set[Any] = set()
    held = 0
    for index in order:
        if held >= tokens:
            break
        chosen.append(index)
        prefixes = shared(index)
        held += lengths[index] + sum(prefixes[key] for key in prefixes.keys() - seen)
        seen |= prefixes.keys()
    return sorted(chosen)


def own_lengths(cache: Cache) -> list[int]:
    """Tokens of each example of a cache that it does not share."""
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
    """Hidden states `[T, d_teacher]` of some examples of a cache: the prefixes that they share,
    once, and each one's own.

    Args:
        cache: holds the examples.
        indices: of the examples.
        layer: of the states.
        states_of: gives an example's states; None: as the cache stores them.

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
    """Hidden states of a layer, cut in two.

    Attributes:
        fitted_to: those that a codec is fitted to, `[N, d_teacher]` bfloat16.
        held_back: those that it is measured on; of other segments than the first, wherever there is
            more than one.
        held_lengths: tokens of the segments of `held_back`.
    """

    fitted_to: npt.NDArray[Any]
    held_back: npt.NDArray[Any]
    held_lengths: list[int]


def split_sample(segments: Sequence[npt.NDArray[Any]]) -> Sample:
    """Cut segments of text `[T, d_teacher]` into those to fit to and those to measure on."""
    segments = [segment for segment in segments if len(segment)]
    held = [
        segment for index, segment in enumerate(segments) if index % _HELD_BACK == 1
    ] or segments
    fit = [segment for index, segment in enumerate(segments) if index % _HELD_BACK != 1]
    return Sample(np.concatenate(fit), np.concatenate(held), list(map(len, held)))

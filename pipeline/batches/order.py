"""Which examples are read together, and in which order: the same for the same seed and epoch,
whoever reads them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache import Cache

_WINDOWS_HELD = 3
"""The one that is read, the next one that is being brought, and room for what validation reads in
between."""
_LIKE = 0.9
"""A batch of a token budget holds no example shorter than this share of its longest, unless too few
are as long."""

Bring = Callable[[Sequence[int]], None]
"""Told which shards are needed now and next."""


@dataclass(frozen=True)
class BatchSize:
    """How much makes a batch: so many examples, or as many of like length as come to so many tokens
    with their padding."""

    examples: int = 1
    tokens: int | None = None


@dataclass(frozen=True)
class Group:
    """Examples of which any `rows` may make a batch."""

    places: list[int]
    rows: int

    @property
    def batches(self) -> int:
        """How many batches they come to."""
        return -(-len(self.places) // self.rows)


@dataclass(frozen=True)
class Window:
    """Some shards that are read together, and the examples in them."""

    shards: list[int]
    groups: list[Group]


def plan_groups(places: Sequence[int], lengths: Sequence[int], size: BatchSize) -> list[Group]:
    """Examples grouped so that a batch of each group keeps its size whatever its members are. A
    longer one stays alone.

    Args:
        places: of the examples, in any order.
        lengths: tokens of the example at each place.
        size: of a batch.
    """
    if size.tokens is None:
        return [Group(list(places), size.examples)]
    groups: list[Group] = []
    longest = 0
    for place in sorted(places, key=lambda place: (-lengths[place], place)):
        if groups and (
            len(groups[-1].places) < groups[-1].rows or lengths[place] >= _LIKE * longest
        ):
            groups[-1].places.append(place)
        else:
            longest = lengths[place]
            groups.append(Group([place], max(1, size.tokens // longest)))
    return groups


def plan_windows(
    shards: Sequence[int], sizes: Sequence[int], window_bytes: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Shards in random order, cut into windows: the shards of each, and the places of the examples
    in them.

    Args:
        shards: shard of the example at each place.
        sizes: bytes of each shard.
        window_bytes: most bytes of a window's shards, where it has more than one.
        seed: chooses the order.
    """
    places = defaultdict(list)
    for place, shard in enumerate(shards):
        places[shard].append(place)
    windows: list[tuple[list[int], list[int]]] = []
    held = 0
    for shard in random.Random(seed).sample(sorted(places), len(places)):
        if not windows or held + sizes[shard] > window_bytes:
            windows.append(([], []))
            held = 0
        windows[-1][0].append(shard)
        windows[-1][1].extend(places[shard])
        held += sizes[shard]
    return windows


class BatchOrder:
    """The batches of each epoch: as many in one as in another, every example once, in an order of
    its own.

    Where all shards are at hand there is one window, the whole. Else windows are read one after the
    other, each with the same shards in every epoch; so few of them need to be on this machine."""

    def __init__(
        self, windows: Sequence[Window], seed: int, bring: Bring = lambda shards: None
    ) -> None:
        """Take a plan; `bring` is told of each window's shards and the next one's when it
        begins."""
        self._windows, self._seed, self._bring = list(windows), seed, bring

    def __len__(self) -> int:
        return sum(group.batches for window in self._windows for group in window.groups)

    def of_epoch(self, epoch: int) -> Iterator[list[int]]:
        """Batches in random order, of random examples of like length."""
        chance = random.Random(f"{self._seed} {epoch}")
        for window in self._told(chance.sample(self._windows, len(self._windows))):
            yield from chance.sample(batches := _cut(window.groups, chance), len(batches))

    def as_they_lie(self) -> Iterator[list[int]]:
        """The same batches in every epoch, for reading without learning."""
        for window in self._told(self._windows):
            yield from _cut(window.groups, None)

    def _told(self, windows: Sequence[Window]) -> Iterator[Window]:
        for window, coming in zip(windows, [*windows[1:], Window([], [])], strict=True):
            self._bring([*window.shards, *coming.shards])
            yield window


def _cut(groups: Sequence[Group], chance: random.Random | None) -> list[list[int]]:
    batches = []
    for group in groups:
        places = group.places if chance is None else chance.sample(group.places, len(group.places))
        batches += [
            places[start : start + group.rows] for start in range(0, len(places), group.rows)
        ]
    return batches


def order_of(
    cache: Cache, indices: Sequence[int], lengths: Sequence[int], size: BatchSize, seed: int
) -> BatchOrder:
    """The order in which some examples of a cache are read, so that what is in use fits where its
    copies are kept.

    Of an object store, what fits is brought in the background from now on.

    Args:
        cache: holds them.
        indices: of the example at each place, in the cache.
        lengths: tokens that are read at each place.
        size: of a batch.
        seed: chooses the order.
    """
    most, sizes = cache.location.copy_limit, [record.bytes for record in cache.records]
    if most is not None and sum(sizes) > most:
        windows = plan_windows(cache.shards_of(indices), sizes, most // _WINDOWS_HELD, seed)
        return BatchOrder(
            [Window(shards, plan_groups(places, lengths, size)) for shards, places in windows],
            seed,
            cache.prefetch,
        )
    if most is not None:
        cache.prefetch(range(len(sizes)))
    return BatchOrder([Window([], plan_groups(range(len(lengths)), lengths, size))], seed)

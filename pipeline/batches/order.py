"""Batches of examples and their order, a pure function of seed and epoch."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cache import Cache

_WINDOWS_IN_COPIES = 3
"""Windows that fit in the local copies: the current one, the next one, and room for validation."""
_SIMILAR_LENGTH = 0.9
"""Shortest example of a batch with a token budget, as a share of its longest, if enough exist."""

Prefetch = Callable[[Sequence[int]], None]
"""Receives the shards that are needed now and next."""


@dataclass(frozen=True)
class BatchSize:
    """The size of a batch.

    Attributes:
        examples: number of examples.
        tokens: instead, number of tokens of examples of similar length, including padding.
    """

    examples: int = 1
    tokens: int | None = None


@dataclass(frozen=True)
class Group:
    """Examples of similar length; any `rows` of them form a batch."""

    places: list[int]
    rows: int

    @property
    def batches(self) -> int:
        """The number of batches."""
        return -(-len(self.places) // self.rows)


@dataclass(frozen=True)
class Window:
    """Shards that are read together, and their examples."""

    shards: list[int]
    groups: list[Group]


def plan_groups(places: Sequence[int], lengths: Sequence[int], size: BatchSize) -> list[Group]:
    """Return groups of examples, such that any batch of a group has the right size.

    An example that is longer than a batch is alone in its group.

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
            len(groups[-1].places) < groups[-1].rows or lengths[place] >= _SIMILAR_LENGTH * longest
        ):
            groups[-1].places.append(place)
        else:
            longest = lengths[place]
            groups.append(Group([place], max(1, size.tokens // longest)))
    return groups


def plan_windows(
    shards: Sequence[int], sizes: Sequence[int], window_bytes: int, seed: int
) -> list[tuple[list[int], list[int]]]:
    """Return windows of shards in random order: their shards, and the places of their examples.

    Args:
        shards: shard of the example at each place.
        sizes: bytes of each shard.
        window_bytes: maximum bytes of a window with more than one shard.
        seed: determines the order.
    """
    places = defaultdict(list)
    for place, shard in enumerate(shards):
        places[shard].append(place)
    windows: list[tuple[list[int], list[int]]] = []
    window_size = 0
    for shard in random.Random(seed).sample(sorted(places), len(places)):
        if not windows or window_size + sizes[shard] > window_bytes:
            windows.append(([], []))
            window_size = 0
        windows[-1][0].append(shard)
        windows[-1][1].extend(places[shard])
        window_size += sizes[shard]
    return windows


class BatchOrder:
    """The batches of each epoch, every example once; all epochs have the same number of batches.

    If all shards fit on this machine, there is one window. Otherwise windows are read one after
    another, and have the same shards in every epoch, so only a few shards need local copies.
    """

    def __init__(
        self, windows: Sequence[Window], seed: int, prefetch: Prefetch = lambda shards: None
    ) -> None:
        """Take windows; `prefetch` receives the shards of each and of the next when it begins."""
        self._windows, self._seed, self._prefetch = list(windows), seed, prefetch

    def __len__(self) -> int:
        return sum(group.batches for window in self._windows for group in window.groups)

    def of_epoch(self, epoch: int) -> Iterator[list[int]]:
        """Return the batches in random order, of random examples of similar length."""
        generator = random.Random(f"{self._seed} {epoch}")
        for window in self._prefetched(generator.sample(self._windows, len(self._windows))):
            batches = _cut(window.groups, generator)
            yield from generator.sample(batches, len(batches))

    def unshuffled(self) -> Iterator[list[int]]:
        """Return the batches in the order of the cache, for evaluation."""
        for window in self._prefetched(self._windows):
            yield from _cut(window.groups, None)

    def _prefetched(self, windows: Sequence[Window]) -> Iterator[Window]:
        for window, following in zip(windows, [*windows[1:], Window([], [])], strict=True):
            self._prefetch([*window.shards, *following.shards])
            yield window


def _cut(groups: Sequence[Group], generator: random.Random | None) -> list[list[int]]:
    batches = []
    for group in groups:
        places = group.places
        if generator is not None:
            places = generator.sample(places, len(places))
        batches += [
            places[start : start + group.rows] for start in range(0, len(places), group.rows)
        ]
    return batches


def order_of(
    cache: Cache, indices: Sequence[int], lengths: Sequence[int], size: BatchSize, seed: int
) -> BatchOrder:
    """Return the order of examples of a cache, such that shards in use fit in the local copies.

    Shards in an object store are downloaded in the background from now on.

    Args:
        cache: has the examples.
        indices: index in the cache of the example at each place.
        lengths: number of tokens read at each place.
        size: of a batch.
        seed: determines the order.
    """
    limit, sizes = cache.location.copy_limit, [record.bytes for record in cache.records]
    if limit is not None and sum(sizes) > limit:
        windows = plan_windows(cache.shards_of(indices), sizes, limit // _WINDOWS_IN_COPIES, seed)
        return BatchOrder(
            [Window(shards, plan_groups(places, lengths, size)) for shards, places in windows],
            seed,
            cache.prefetch,
        )
    if limit is not None:
        cache.prefetch(range(len(sizes)))
    return BatchOrder([Window([], plan_groups(range(len(lengths)), lengths, size))], seed)

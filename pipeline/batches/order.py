"""In which order the examples of a remote cache are read, so that few of its shards need to be on this machine."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch.utils.data import Sampler

from cache import Cache

_WINDOWS_HELD = 3
"""The one that is read, the next one that is being brought, and room for what validation reads in between."""


@dataclass(frozen=True)
class Window:
    """Some shards, and places of the examples in them in the order in which they are read."""

    shards: list[int]
    places: list[int]


def plan_windows(shards: Sequence[int], sizes: Sequence[int], window_bytes: int, seed: int, epoch: int) -> list[Window]:
    """Shards in random order, cut into windows; examples in random order within each. A pure function of its arguments.

    Args:
        shards: shard of the example at each place.
        sizes: bytes of each shard.
        window_bytes: most bytes of a window's shards, where it has more than one.
        seed, epoch: choose the order.
    """
    chance = random.Random(f"{seed} {epoch}")
    places = defaultdict(list)
    for place, shard in enumerate(shards):
        places[shard].append(place)
    windows: list[Window] = []
    held = 0
    for shard in chance.sample(sorted(places), len(places)):
        if not windows or held + sizes[shard] > window_bytes:
            windows.append(Window([], []))
            held = 0
        windows[-1].shards.append(shard)
        windows[-1].places.extend(places[shard])
        held += sizes[shard]
    for window in windows:
        chance.shuffle(window.places)
    return windows


class WindowedShuffle(Sampler[int]):
    """Reads window after window, and asks for the shards of the next one while one is read."""

    def __init__(
        self, shards: Sequence[int], sizes: Sequence[int], window_bytes: int, seed: int, bring: Callable[[Sequence[int]], None]
    ) -> None:
        """Take the arguments of `plan_windows`; `bring` is told which shards are needed now and next."""
        self._shards, self._sizes, self._window_bytes, self._seed, self._bring = shards, sizes, window_bytes, seed, bring
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[int]:
        windows = plan_windows(self._shards, self._sizes, self._window_bytes, self._seed, self._epoch)
        for window, coming in zip(windows, [*windows[1:], Window([], [])], strict=True):
            self._bring([*window.shards, *coming.shards])
            yield from window.places


def order_of(cache: Cache, indices: Sequence[int], seed: int) -> WindowedShuffle | None:
    """The order in which training reads some examples of a cache; None: any, because all shards are on this machine, or fit.

    What fits is brought in the background from now on.
    """
    most, sizes = cache.place.most_held, [record.bytes for record in cache.records]
    if most is None:
        return None
    if sum(sizes) <= most:
        cache.bring(range(len(sizes)))
        return None
    return WindowedShuffle(cache.shards_of(indices), sizes, most // _WINDOWS_HELD, seed, cache.bring)

"""Which shard holds which example."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from cache.shard.record import ShardRecord


class ExampleIndex:
    """Numbers the examples of consecutive shards from 0."""

    def __init__(self, records: Sequence[ShardRecord]) -> None:
        self._first = [0, *accumulate(len(record.row_ids) for record in records)]

    def __len__(self) -> int:
        return self._first[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """Return the shard of an example, and its position there.

        Raises:
            IndexError: there is no such example.
        """
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"example {index} of a cache of {count}")
        (shard,) = self.shards_of([index % count])
        return shard, index % count - self._first[shard]

    def number(self, shard: int, position: int) -> int:
        """Return the number of the example at a position in a shard."""
        return self._first[shard] + position

    def shards_of(self, indices: Iterable[int]) -> list[int]:
        """Return the shard of each example, given non-negative indices."""
        return [bisect_right(self._first, index) - 1 for index in indices]

"""The prefixes that the examples of a cache share: where each is stored, and what comes before
it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cache.errors import DamagedCacheError
from cache.shard.content import NO_PREFIX
from cache.shard.record import ShardRecord


@dataclass(frozen=True)
class StoredPrefix:
    """Where a prefix's own tokens are stored.

    Attributes:
        record: index of its shard's record.
        segment: which segment of the shard it is.
        after: number of the prefix that comes before it; -1 where nothing does.
        length: tokens from the very beginning to its end.
    """

    record: int
    segment: int
    after: int
    length: int


class Prefixes:
    """All prefixes of a cache by their numbers. One may begin with another, so they form a tree."""

    def __init__(self, records: Iterable[ShardRecord]) -> None:
        """Collect them from the journal.

        Raises:
            DamagedCacheError: two have the same number, one that is needed is missing, or lengths
                contradict each other.
        """
        records = list(records)
        found = {
            int(number): (
                index,
                segment,
                int(record.prefixes[segment]),
                int(record.stored[segment]),
            )
            for index, record in enumerate(records)
            for segment, number in enumerate(record.prefix_numbers.tolist())
        }
        if len(found) != sum(len(record.prefix_numbers) for record in records):
            raise DamagedCacheError("the journal names a shared prefix twice")
        self._stored: dict[int, StoredPrefix] = {}
        for number in sorted(found):  # whatever comes before a prefix has a smaller number
            index, segment, after, own = found[number]
            self._stored[number] = StoredPrefix(
                index, segment, after, self._length(after, records[index]) + own
            )
        for record in records:
            first = len(record.prefix_numbers)
            for position, length in enumerate(record.lengths.tolist()):
                after, own = (
                    int(record.prefixes[first + position]),
                    int(record.stored[first + position]),
                )
                if self._length(after, record) + own != length:
                    raise DamagedCacheError(
                        f"shard {record.shard}: row {record.row_ids[position]} has {length} tokens,"
                        " its segments have others"
                    )

    def path(self, number: int) -> list[StoredPrefix]:
        """The prefixes that make up what comes before a segment, from the first to the one of this
        number."""
        path = []
        while number != NO_PREFIX:
            path.append(self._stored[number])
            number = path[-1].after
        return path[::-1]

    def __len__(self) -> int:
        return len(self._stored)

    def _length(self, number: int, record: ShardRecord) -> int:
        if number == NO_PREFIX:
            return 0
        if number not in self._stored:
            raise DamagedCacheError(
                f"shard {record.shard} needs shared prefix {number}, which no shard of the journal"
                " stores"
            )
        return self._stored[number].length

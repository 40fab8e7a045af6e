"""Where the shared prefixes of a cache are stored, and how they follow each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cache.errors import DamagedCacheError
from cache.shard.content import NO_PREFIX
from cache.shard.record import ShardRecord


@dataclass(frozen=True)
class StoredPrefix:
    """Location of a prefix's segment.

    Attributes:
        record: index of its shard's record.
        segment: index of the segment in the shard.
        after: number of the preceding prefix; -1 for none.
        length: tokens from the start of the text to the end of the prefix.
    """

    record: int
    segment: int
    after: int
    length: int


class Prefixes:
    """All prefixes of a cache by number; a prefix may continue another, so they form trees."""

    def __init__(self, records: Iterable[ShardRecord]) -> None:
        """Collect the prefixes from shard records.

        Raises:
            DamagedCacheError: a prefix is repeated or missing, or lengths contradict each other.
        """
        records = list(records)
        location = {
            number: (index, segment)
            for index, record in enumerate(records)
            for segment, number in enumerate(record.prefix_numbers.tolist())
        }
        if len(location) != sum(len(record.prefix_numbers) for record in records):
            raise DamagedCacheError("the journal lists a shared prefix twice")
        self._stored: dict[int, StoredPrefix] = {}
        for number in sorted(location):  # a prefix has a larger number than its predecessor
            index, segment = location[number]
            record = records[index]
            after, own = int(record.prefixes[segment]), int(record.stored[segment])
            self._stored[number] = StoredPrefix(
                index, segment, after, self._length(after, record) + own
            )
        for record in records:
            self._require_same_lengths(record)

    def path(self, number: int) -> list[StoredPrefix]:
        """Return a prefix and its predecessors, in the order of the text."""
        path = []
        while number != NO_PREFIX:
            path.append(self._stored[number])
            number = path[-1].after
        return path[::-1]

    def __len__(self) -> int:
        return len(self._stored)

    def _require_same_lengths(self, record: ShardRecord) -> None:
        first = len(record.prefix_numbers)
        for position, length in enumerate(record.lengths.tolist()):
            after = int(record.prefixes[first + position])
            own = int(record.stored[first + position])
            if self._length(after, record) + own != length:
                raise DamagedCacheError(
                    f"shard {record.shard}: row {record.row_ids[position]} has {length} tokens,"
                    f" its segments {self._length(after, record) + own}"
                )

    def _length(self, number: int, record: ShardRecord) -> int:
        if number == NO_PREFIX:
            return 0
        if number not in self._stored:
            raise DamagedCacheError(
                f"shard {record.shard} needs shared prefix {number}, which no shard in the"
                " journal stores"
            )
        return self._stored[number].length

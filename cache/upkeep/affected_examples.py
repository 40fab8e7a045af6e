"""The examples that read a segment: those of a shared prefix may be in many shards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from cache.shard.record import ShardRecord


class AffectedExamples:
    """Index from segments to the examples of a cache that read them.

    Attributes:
        row_ids: of all examples, by index.
    """

    def __init__(self, records: Sequence[ShardRecord]) -> None:
        self.row_ids = [row_id for record in records for row_id in record.row_ids]
        starts = accumulate((len(record.row_ids) for record in records), initial=0)
        self._first = {record.shard: start for record, start in zip(records, starts, strict=False)}
        parents = {
            number: parent
            for record in records
            for number, parent in zip(
                record.prefix_numbers.tolist(), record.prefixes.tolist(), strict=False
            )
        }
        self._readers: dict[int, list[int]] = {}
        prefixes = (
            number
            for record in records
            for number in record.prefixes[len(record.prefix_numbers) :].tolist()
        )
        for index, number in enumerate(prefixes):
            while number in parents:
                self._readers.setdefault(number, []).append(index)
                number = parents[number]

    def reading(self, record: ShardRecord, segments: Sequence[int]) -> list[int]:
        """Return the indices of the examples that read any of these segments of a shard."""
        numbers = record.prefix_numbers.tolist()
        indices = {
            self._first[record.shard] + segment - len(numbers)
            for segment in segments
            if segment >= len(numbers)
        }
        for segment in segments:
            if segment < len(numbers):
                indices.update(self._readers.get(numbers[segment], []))
        return sorted(indices)

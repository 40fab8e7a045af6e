"""The order in which workers compute shards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from cache.shard.record import ShardRecord
from pipeline.extract.plan import ExtractPlan


class ShardQueue:
    """Assigns missing shards in ascending order.

    A complete duplicate is not computed again, so its shard waits until the shard that stores its
    text is published: only then is it known whether the states are finite. That shard has a smaller
    number, so a shard without unpublished dependencies always exists or is in flight.
    """

    def __init__(self, plan: ExtractPlan, published: Mapping[int, ShardRecord]) -> None:
        """Start with the published shards; the caller adds to `published` as it journals more."""
        self._plan, self._published = plan, published
        self._starts = [shard[0] for shard in plan.shards]
        self._waiting = [shard for shard in range(len(plan.shards)) if shard not in published]
        self._in_flight: set[int] = set()

    def __len__(self) -> int:
        """Return the number of shards that are not published."""
        return len(self._waiting) + len(self._in_flight)

    @property
    def unusable(self) -> set[int]:
        """Prefixes known to have no finite states."""
        return self._plan.unusable_prefixes(self._published)

    def take(self) -> int | None:
        """Return the next shard that can be computed now; None if there is none."""
        for place, shard in enumerate(self._waiting):
            if self.dependencies(shard) <= self._published.keys():
                self._in_flight.add(shard)
                return self._waiting.pop(place)
        return None

    def mark_published(self, shard: int) -> None:
        """Remove a shard that is durable and in the mapping of published shards."""
        self._in_flight.remove(shard)

    def give_back(self, shard: int) -> None:
        """Return a shard to the queue because its worker died."""
        self._in_flight.remove(shard)
        self._waiting = sorted([*self._waiting, shard])

    def dependencies(self, shard: int) -> set[int]:
        """Return the other shards that store the text of this shard's complete duplicates."""
        sharing = self._plan.sharing
        numbers = {sharing.of_example[index] for index in self._plan.shards[shard]}
        prefixes = [sharing.prefixes[number] for number in numbers if number >= 0]
        texts = [prefix for prefix in prefixes if not prefix.is_stem]
        return {bisect_right(self._starts, prefix.example) - 1 for prefix in texts} - {shard}

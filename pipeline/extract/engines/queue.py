"""Which shard is made next, when several workers make them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from cache.shard.record import ShardRecord
from pipeline.extract.plan import ExtractPlan


class ShardQueue:
    """Hands out missing shards in their order.

    A whole duplicate is not read again: its shard waits for the one that stores its text, from
    which is known whether it is finite. That one always comes earlier, so there is always a shard
    that waits for nothing that is not being made."""

    def __init__(self, plan: ExtractPlan, published: Mapping[int, ShardRecord]) -> None:
        """Begin with what an earlier run has published."""
        self._plan, self._published = plan, published
        self._starts = [shard[0] for shard in plan.shards]
        self._waiting = [shard for shard in range(len(plan.shards)) if shard not in published]
        self._in_hand: set[int] = set()

    def __len__(self) -> int:
        """Shards that are not published."""
        return len(self._waiting) + len(self._in_hand)

    @property
    def unusable(self) -> set[int]:
        """Numbers of the prefixes known to have no finite states."""
        return self._plan.unusable_prefixes(self._published)

    def take(self) -> int | None:
        """The next shard that can be made now; None where there is none."""
        for place, shard in enumerate(self._waiting):
            if self.needs(shard) <= self._published.keys():
                self._in_hand.add(shard)
                return self._waiting.pop(place)
        return None

    def published(self, shard: int) -> None:
        """Told that a shard is durable, and named in the mapping that was given at the
        beginning."""
        self._in_hand.remove(shard)

    def give_back(self, shard: int) -> None:
        """Told that who took a shard will not make it."""
        self._in_hand.remove(shard)
        self._waiting = sorted([*self._waiting, shard])

    def needs(self, shard: int) -> set[int]:
        """The other shards that store whole texts of which this one holds duplicates."""
        sharing = self._plan.sharing
        numbers = {sharing.of_example[index] for index in self._plan.shards[shard]}
        texts = [
            prefix
            for number in numbers
            if number >= 0 and not (prefix := sharing.prefixes[number]).is_stem
        ]
        return {bisect_right(self._starts, prefix.example) - 1 for prefix in texts} - {shard}

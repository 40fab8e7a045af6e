"""The result of verifying a cache."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Damage:
    """One defect.

    Attributes:
        file: name relative to the cache.
        what: the defect, in words.
        shard: number of the shard that the file belongs to.
        examples: indices in the cache of the affected examples.
        row_ids: their row ids.
    """

    file: str
    what: str
    shard: int | None = None
    examples: list[int] = field(default_factory=list)
    row_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verification:
    """The state of a cache.

    Attributes:
        whole: nothing is missing or damaged.
        shards, examples, tokens, bytes: published and checked; `bytes` counts the shards' files.
        missing_shards: planned but not published.
        damage: all defects of what is published.
        strays: files that are not part of the cache, such as those of a dead writer.
        content_digest: None unless the cache is whole.
    """

    cache: str
    whole: bool
    shards: int
    examples: int
    tokens: int
    bytes: int
    missing_shards: list[int]
    damage: list[Damage]
    strays: list[str]
    content_digest: str | None

    def damaged_shards(self) -> list[int]:
        """Return the damaged and missing shards."""
        damaged = {damage.shard for damage in self.damage if damage.shard is not None}
        return sorted(damaged | set(self.missing_shards))

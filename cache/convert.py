"""A cache in another format or codec, without the teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cache.errors import CacheError, DamagedCacheError
from cache.manifest import ATTACHMENTS
from cache.space import require_room, room_needed, shard_size
from cache.store import content_digest_of, open_cache
from cache.writer import require_continuable, write_cache


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did: the new cache, and how it differs from the old one.

    Attributes:
        same_content: whether the content digest is the source's; it is wherever the codec is.
        resumed_shards: shards that an earlier, interrupted conversion had published.
    """

    cache: str
    format: str
    codec: str
    shards: int
    resumed_shards: int
    examples: int
    bytes: int
    source_bytes: int
    content_digest: str
    same_content: bool


def convert_cache(
    source: Path,
    target: Path,
    *,
    container: str | None = None,
    codec: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertResult:
    """Write a whole cache anew, shard by shard. Killed, it goes on where it was when it is run again.

    Args:
        source: a whole cache; each shard is checked before it is read.
        target: folder of the new cache.
        container: format of the new cache; the source's where it is left out.
        codec: likewise.
        progress: called with the examples done and their number in all.

    Raises:
        CacheError: the source is not a whole cache, the target holds another one, or its disk has too little room.
        DamagedCacheError: a shard of the source is damaged.
    """
    places = [source.resolve(), target.resolve()]
    if any(place.is_relative_to(other) for place, other in (places, reversed(places))):
        raise CacheError(f"{target}: a cache cannot be converted into its own folder; name a new one beside it")
    with open_cache(source) as cache:
        was = cache.manifest
        wanted = replace(was, format=container or was.format, codec=codec or was.codec)
        wanted = replace(wanted, identity=was.identity | {"codec": wanted.codec})
        missing = require_continuable(target, wanted)
        left = [cache.records[shard] for shard in missing if cache.records[shard].row_ids]
        sizes = [shard_size(wanted, record.lengths.tolist(), record.row_ids) for record in left]
        require_room(target, room_needed(sizes, sum(len(record.row_ids) for record in left)))
        with write_cache(target, wanted, source / ATTACHMENTS) as writer:
            first = 0
            for record in cache.records:
                if record.shard not in writer.published:
                    examples = cache[first : first + len(record.row_ids)]
                    writer.publish(record.shard, examples, non_finite=record.non_finite, provenance=record.provenance)
                first += len(record.row_ids)
                progress(first, len(cache))
            records = [writer.published[shard] for shard in sorted(writer.published)]
        digest = content_digest_of(records)
        if wanted.codec == was.codec and digest != cache.content_digest:
            raise DamagedCacheError(f"{target}: its content differs from that of {source}; delete it and convert again")
        return ConvertResult(
            cache=str(target),
            format=wanted.format,
            codec=wanted.codec,
            shards=len(records),
            resumed_shards=len(records) - len(missing),
            examples=len(cache),
            bytes=sum(record.bytes for record in records),
            source_bytes=cache.bytes,
            content_digest=digest,
            same_content=digest == cache.content_digest,
        )

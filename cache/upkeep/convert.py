"""Converting a cache to another container or codec, without the teacher."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cache.codecs import EXACT, Codec, CodedStates
from cache.codecs.fit_file import codec_identity, expected_bits, write_fits
from cache.errors import CacheError, DamagedCacheError
from cache.location import require_separate
from cache.names import ATTACHMENTS, FITS
from cache.reader import Cache, open_cache
from cache.shard.content import ShardContent
from cache.storage import LocationLike, storage_location
from cache.totals import content_digest_of
from cache.upkeep.space import require_room, room_needed, shard_size
from cache.writer import require_resumable, write_cache


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did.

    Attributes:
        same_content: whether the content digest is the source's, as it is without new codecs.
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
    source: LocationLike,
    target: LocationLike,
    *,
    container: str | None = None,
    codecs: Mapping[int, Codec] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ConvertResult:
    """Write a copy of a cache shard by shard; an interrupted conversion is resumed.

    Args:
        source: a complete cache; each shard is checked before it is read.
        target: location of the new cache.
        container: container format of the new cache; the source's by default.
        codecs: new codecs of layers; only exact states can be encoded again.
        progress: called with the examples done and their total.

    Raises:
        CacheError: the source is not a complete cache, the target has another one, or its disk
            has too little room.
        DamagedCacheError: a shard of the source is damaged.
    """
    source, target = storage_location(source), storage_location(target)
    require_separate(source, target)
    with open_cache(source) as cache:
        was = cache.manifest
        codecs = {**cache.codecs, **(codecs or {})}
        for layer in cache.layers:
            if codecs[layer] is not cache.codecs[layer]:
                require_exact(cache, layer, codecs[layer].name)
        names = tuple(codecs[layer].name for layer in cache.layers)
        wanted = replace(was, format=container or was.format, codecs=names)
        wanted = replace(wanted, identity=was.identity | {"codec": codec_identity(codecs)})
        missing = require_resumable(target, wanted)
        left = [cache.records[shard] for shard in missing if cache.records[shard].files]
        bits = {layer: expected_bits(codecs[layer]) for layer in cache.layers}
        bits |= {
            layer: rate
            for layer, rate in cache.bits_per_value.items()
            if codecs[layer] is cache.codecs[layer]
        }
        sizes = [
            shard_size(wanted, record.stored.tolist(), record.row_ids, record.text_bytes, bits)
            for record in left
        ]
        require_room(target, room_needed(sizes, sum(len(record.row_ids) for record in left)))
        with tempfile.TemporaryDirectory() as attachments:
            shutil.copytree(
                source.folder / ATTACHMENTS,
                attachments,
                ignore=shutil.ignore_patterns(FITS),
                dirs_exist_ok=True,
            )
            write_fits(Path(attachments), codecs)
            with write_cache(target, wanted, Path(attachments)) as writer:
                done = 0
                for shard, record in enumerate(cache.records):
                    if shard not in writer.published:
                        content = _reencoded(cache, shard, codecs)
                        writer.publish(
                            shard,
                            content,
                            non_finite=record.non_finite,
                            provenance=record.provenance,
                        )
                    done += len(record.row_ids)
                    progress(done, len(cache))
                records = [writer.published[shard] for shard in sorted(writer.published)]
        digest = content_digest_of(records)
        if wanted.identity == was.identity and digest != cache.content_digest:
            raise DamagedCacheError(
                f"{target.address}: its content is not that of {source.address}; delete it and"
                " convert again"
            )
        return ConvertResult(
            cache=target.address,
            format=wanted.format,
            codec=wanted.codec,
            shards=len(records),
            resumed_shards=len(records) - len(missing),
            examples=len(cache),
            bytes=sum(record.bytes for record in records) + writer.manifest.fit_bytes,
            source_bytes=cache.bytes,
            content_digest=digest,
            same_content=digest == cache.content_digest,
        )


def require_exact(cache: Cache, layer: int, codec: str) -> None:
    """Refuse to encode a lossy layer again: the distortions would add up.

    Raises:
        CacheError: the layer, which is to get the codec named, is not stored exactly.
    """
    was = cache.codecs[layer].name
    if was != EXACT:
        raise CacheError(
            f"{cache.address}: layer {layer} is stored as {was}, which cannot be undone or"
            f" encoded again; convert a {EXACT} cache, or extract with --codec {codec}"
        )


def _reencoded(cache: Cache, shard: int, now: Mapping[int, Codec]) -> ShardContent:
    """Return a shard's content with the layers encoded again whose codec changed."""
    content = cache.shard_content(
        shard, [layer for layer in cache.layers if now[layer] is not cache.codecs[layer]]
    )
    coded = {
        layer: (
            now[layer].encode(cache.codecs[layer].decode(states))
            if isinstance(states, CodedStates)
            else states
        )
        for layer, states in content.hidden_states.items()
    }
    return replace(content, hidden_states=coded)

"""Convert a cache to another container or codec, without the teacher."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.codecs import EXACT, Codec, CodedStates
from cache.codecs.fit_file import codec_identity, expected_bits, write_fits
from cache.errors import CacheError, DamagedCacheError
from cache.location import require_separate
from cache.manifest import Manifest
from cache.names import ATTACHMENTS, FITS
from cache.reader import Cache, open_cache
from cache.shard.content import ShardContent
from cache.storage import LocationLike, StorageLocation, storage_location
from cache.totals import content_digest_of
from cache.upkeep.space import require_room, room_needed, shard_size
from cache.writer import require_resumable, write_cache


@dataclass(frozen=True)
class ConvertResult:
    """What a conversion did.

    Attributes:
        same_content: whether the content digest equals the source's; always so without new codecs.
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
        source: a complete cache; every shard is checked before it is read.
        target: location of the new cache.
        container: container format of the new cache; the source's by default.
        codecs: new codecs of layers; only exact states can be encoded again.
        progress: called with the examples done and their total.

    Raises:
        CacheError: the source is incomplete, the target has another cache, or its disk has too
            little room.
        DamagedCacheError: a shard of the source is damaged.
    """
    source, target = storage_location(source), storage_location(target)
    require_separate(source, target)
    with open_cache(source) as cache:
        codecs = {**cache.codecs, **(codecs or {})}
        for layer in _changed_layers(cache, codecs):
            require_exact(cache, layer, codecs[layer].name)
        manifest = _target_manifest(cache, container, codecs)
        missing = require_resumable(target, manifest)
        _require_room(cache, target, manifest, codecs, missing)
        with tempfile.TemporaryDirectory() as attachments:
            shutil.copytree(
                source.folder / ATTACHMENTS,
                attachments,
                ignore=shutil.ignore_patterns(FITS),
                dirs_exist_ok=True,
            )
            write_fits(Path(attachments), codecs)
            with write_cache(target, manifest, Path(attachments)) as writer:
                done = 0
                for shard, record in enumerate(cache.records):
                    if shard not in writer.published:
                        writer.publish(
                            shard,
                            _reencoded(cache, shard, codecs),
                            non_finite=record.non_finite,
                            provenance=record.provenance,
                        )
                    done += len(record.row_ids)
                    progress(done, len(cache))
                records = [writer.published[shard] for shard in sorted(writer.published)]
        digest = content_digest_of(records)
        if manifest.identity == cache.manifest.identity and digest != cache.content_digest:
            raise DamagedCacheError(
                f"{target.address}: its content is not that of {source.address}; delete it and"
                " convert again"
            )
        return ConvertResult(
            cache=target.address,
            format=manifest.format,
            codec=manifest.codec,
            shards=len(records),
            resumed_shards=len(records) - len(missing),
            examples=len(cache),
            bytes=sum(record.bytes for record in records) + writer.manifest.fit_bytes,
            source_bytes=cache.bytes,
            content_digest=digest,
            same_content=digest == cache.content_digest,
        )


def _changed_layers(cache: Cache, codecs: Mapping[int, Codec]) -> list[int]:
    return [layer for layer in cache.layers if codecs[layer] is not cache.codecs[layer]]


def _target_manifest(cache: Cache, container: str | None, codecs: Mapping[int, Codec]) -> Manifest:
    manifest = cache.manifest
    return replace(
        manifest,
        format=container or manifest.format,
        codecs=tuple(codecs[layer].name for layer in cache.layers),
        identity=manifest.identity | {"codec": codec_identity(codecs)},
    )


def _require_room(
    cache: Cache,
    target: StorageLocation,
    manifest: Manifest,
    codecs: Mapping[int, Codec],
    missing: Sequence[int],
) -> None:
    """Refuse to begin without disk space for the missing shards."""
    changed = _changed_layers(cache, codecs)
    bits = {layer: expected_bits(codecs[layer]) for layer in cache.layers}
    bits |= {layer: rate for layer, rate in cache.bits_per_value.items() if layer not in changed}
    records = [cache.records[shard] for shard in missing if cache.records[shard].files]
    sizes = [
        shard_size(manifest, record.stored.tolist(), record.row_ids, record.text_bytes, bits)
        for record in records
    ]
    require_room(target, room_needed(sizes, sum(len(record.row_ids) for record in records)))


def require_exact(cache: Cache, layer: int, codec: str) -> None:
    """Refuse to encode a lossy layer again: the distortions would add up.

    Raises:
        CacheError: the layer is not stored exactly; names `codec` as the one to extract with.
    """
    current = cache.codecs[layer].name
    if current != EXACT:
        raise CacheError(
            f"{cache.address}: layer {layer} is stored as {current}, which cannot be undone or"
            f" encoded again; convert a {EXACT} cache, or extract with --codec {codec}"
        )


def _reencoded(cache: Cache, shard: int, codecs: Mapping[int, Codec]) -> ShardContent:
    """Return a shard's content, with the layers encoded again whose codec changes."""
    content = cache.shard_content(shard, _changed_layers(cache, codecs))
    states = {
        layer: (
            codecs[layer].encode(cache.codecs[layer].decode(coded))
            if isinstance(coded, CodedStates)
            else coded
        )
        for layer, coded in content.hidden_states.items()
    }
    return replace(content, hidden_states=states)

"""Putting a shard on the disk, whole and durable; and telling its journal line from what lies there."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError, OtherContentError
from cache.files import checksum_of, files_below, inside, publish, remove
from cache.formats import format_named
from cache.identity import identity_hash
from cache.journal import ShardRecord
from cache.manifest import Manifest
from cache.open_shard import SHARDS, read_arrays, shard_name
from cache.places import Where, place_of
from cache.shard import (
    FIXED_ARRAYS,
    content_digest,
    held_pieces,
    hidden_states_name,
    piece_checksums,
    presented_arrays,
    shard_arrays,
    shard_attributes,
    shard_seal,
)
from cache.shard_content import ShardContent


def store_shard(
    where: Where,
    manifest: Manifest,
    shard: int,
    content: ShardContent,
    non_finite: Mapping[str, int],
    provenance: Mapping[str, Any],
    digest: str | None = None,
) -> ShardRecord:
    """Put a whole, durable shard where the journal will look for it, in whatever place; what stood there is replaced.

    Raises:
        OtherContentError: `digest` is given and is not that of this content; nothing has been touched.
        OSError: it cannot be written; what was half written is gone again.
    """
    arrays = shard_arrays(content, manifest.codec_of) if len(content.stored) else {}
    found = content_digest(arrays)
    if digest not in (None, found):
        raise OtherContentError(f"shard {shard}: its content digest is {found}, that of the lost one was {digest}")
    place = place_of(where)
    with place.claim(shard_name(manifest, shard)):
        record = _stored(place.folder, manifest, shard, content, arrays, found, non_finite, provenance)
        place.keep_shard(record)
    return record


def _stored(
    root: Path,
    manifest: Manifest,
    shard: int,
    content: ShardContent,
    arrays: Mapping[str, npt.NDArray[Any]],
    digest: str,
    non_finite: Mapping[str, int],
    provenance: Mapping[str, Any],
) -> ShardRecord:
    final = inside(root, SHARDS) / Path(shard_name(manifest, shard)).name
    if not arrays:
        remove(final)
        none, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return ShardRecord(shard, {}, digest, [], counts, counts, counts, counts, none, {}, dict(non_finite), dict(provenance))
    staged = final.with_name(f"partial-{final.name}")
    remove(staged)
    try:
        attributes = shard_attributes(manifest.codec_of, shard_seal(_cache_of(manifest), shard, digest, non_finite))
        presented = presented_arrays(manifest.codec_of, manifest.fits, len(content.input_ids), manifest.hidden_size)
        format_named(manifest.format).write(staged, arrays, attributes, presented)
        remove(final)  # a damaged one, or one that its writer could not name in the journal before it died
        publish(staged, final)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(staged)  # a full disk gets its space back
        raise
    return _record(root, manifest, shard, arrays, digest, non_finite, provenance)


def restore_record(root: Path, manifest: Manifest, shard: int) -> ShardRecord | None:
    """The journal line of a shard that the journal does not name, from the shard itself.

    None where it is not there, belongs to another cache or place, or its content is not the one that it was sealed with.
    """
    path = root / shard_name(manifest, shard)
    if not path.exists():
        return None
    names = [*FIXED_ARRAYS, *map(hidden_states_name, manifest.layers)]
    try:
        for file in files_below(path):
            inside(root, file.relative_to(root).as_posix())
        container = format_named(manifest.format)
        attributes = container.attributes(path)
        arrays = read_arrays(container.locate(path, names))
        non_finite = json.loads(attributes.get("non_finite", "{}"))
        digest = content_digest(arrays)
        if shard_seal(_cache_of(manifest), shard, digest, non_finite).items() <= attributes.items():
            return _record(root, manifest, shard, arrays, digest, non_finite, {})
    except (CacheError, OSError, ValueError, TypeError, AttributeError):
        pass
    return None


def _cache_of(manifest: Manifest) -> str:
    return identity_hash(manifest.identity, layers=manifest.layers, shard_tokens=manifest.shard_tokens, format=manifest.format)


def _record(
    root: Path,
    manifest: Manifest,
    shard: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    digest: str,
    non_finite: Mapping[str, int],
    provenance: Mapping[str, Any],
) -> ShardRecord:
    text, starts = arrays["row_id_bytes"].tobytes(), arrays["row_id_offsets"].tolist()
    numbers = arrays["numbers"]
    return ShardRecord(
        shard=shard,
        files={
            path.relative_to(root).as_posix(): (path.stat().st_size, checksum_of(path))
            for path in files_below(root / shard_name(manifest, shard))
        },
        digest=digest,
        row_ids=[text[start:stop].decode() for start, stop in itertools.pairwise(starts)],
        lengths=arrays["lengths"],
        stored=np.diff(arrays["offsets"]),
        prefix_numbers=numbers[numbers >= 0],
        prefixes=arrays["prefixes"],
        checksums=piece_checksums(arrays, held_pieces(arrays, manifest.codec_of, manifest.hidden_size)),
        state_bytes={str(layer): arrays[hidden_states_name(layer)].nbytes for layer in manifest.layers},
        non_finite=dict(non_finite),
        provenance=dict(provenance),
    )

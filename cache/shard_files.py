"""Putting a shard on the disk, whole and durable; and telling its journal line from what lies there."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import codec_named
from cache.errors import CacheError, OtherContentError
from cache.example import Example
from cache.files import checksum_of, files_below, inside, publish, remove
from cache.formats import format_named
from cache.identity import identity_hash
from cache.journal import ShardRecord
from cache.manifest import Manifest
from cache.open_shard import SHARDS, read_arrays, shard_name
from cache.shard import (
    content_digest,
    example_checksums,
    hidden_states_name,
    shard_arrays,
    shard_attributes,
    shard_seal,
)


def store_shard(
    root: Path,
    manifest: Manifest,
    shard: int,
    examples: Sequence[Example],
    non_finite: Mapping[str, int],
    provenance: Mapping[str, Any],
    digest: str | None = None,
) -> ShardRecord:
    """Put a whole, durable shard where the journal will look for it; what stood there is replaced.

    Raises:
        OtherContentError: `digest` is given and is not that of these examples; nothing has been touched.
        OSError: it cannot be written; what was half written is gone again.
    """
    codec = codec_named(manifest.codec)
    arrays = shard_arrays(examples, codec) if examples else {}
    found = content_digest(arrays)
    if digest not in (None, found):
        raise OtherContentError(f"shard {shard}: its content digest is {found}, that of the lost one was {digest}")
    final = inside(root, SHARDS) / Path(shard_name(manifest, shard)).name
    if not examples:
        remove(final)
        empty = np.zeros(0, np.uint64)
        return ShardRecord(shard, {}, found, [], empty.astype(np.int64), empty, 0, dict(non_finite), dict(provenance))
    staged = final.with_name(f"partial-{final.name}")
    remove(staged)
    try:
        seal = shard_seal(_cache_of(manifest), shard, found, non_finite)
        format_named(manifest.format).write(staged, arrays, shard_attributes(manifest.layers, codec, seal))
        remove(final)  # a damaged one, or one that its writer could not name in the journal before it died
        publish(staged, final)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(staged)  # a full disk gets its space back
        raise
    return _record(root, manifest, shard, arrays, found, non_finite, provenance)


def restore_record(root: Path, manifest: Manifest, shard: int) -> ShardRecord | None:
    """The journal line of a shard that the journal does not name, from the shard itself.

    None where it is not there, belongs to another cache or place, or its content is not the one that it was sealed with.
    """
    path = root / shard_name(manifest, shard)
    if not path.exists():
        return None
    names = ["offsets", "input_ids", "loss_mask", "row_id_offsets", "row_id_bytes", *map(hidden_states_name, manifest.layers)]
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
    return ShardRecord(
        shard=shard,
        files={
            path.relative_to(root).as_posix(): (path.stat().st_size, checksum_of(path))
            for path in files_below(root / shard_name(manifest, shard))
        },
        digest=digest,
        row_ids=[text[start:stop].decode() for start, stop in itertools.pairwise(starts)],
        lengths=np.diff(arrays["offsets"]),
        checksums=example_checksums(arrays),
        state_bytes=sum(arrays[hidden_states_name(layer)].nbytes for layer in manifest.layers),
        non_finite=dict(non_finite),
        provenance=dict(provenance),
    )

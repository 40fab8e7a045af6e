"""Writing a shard durably, and restoring its journal line from its files."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.containers import container_named
from cache.errors import CacheError, OtherContentError
from cache.files import checksum_of, files_below, inside, publish, remove
from cache.identity import identity_hash
from cache.manifest import Manifest
from cache.names import SHARDS
from cache.shard.array_reader import read_arrays
from cache.shard.content import ShardContent
from cache.shard.digests import content_digest, segment_checksums
from cache.shard.layout import (
    FIXED_ARRAYS,
    decoded_arrays,
    hidden_states_name,
    packed_segments,
    shard_arrays,
    shard_attributes,
    shard_seal,
)
from cache.shard.reader import shard_name
from cache.shard.record import ShardRecord
from cache.storage import ShardStorage


@dataclass(frozen=True)
class _Sealed:
    """A shard's arrays, and the other fields of its journal line."""

    manifest: Manifest
    number: int
    arrays: Mapping[str, npt.NDArray[Any]]
    digest: str
    non_finite: Mapping[str, int]
    provenance: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name relative to the cache."""
        return shard_name(self.manifest, self.number)

    @property
    def seal(self) -> dict[str, str]:
        """Attributes that identify the shard."""
        return shard_seal(_cache_of(self.manifest), self.number, self.digest, self.non_finite)


def store_shard(
    storage: ShardStorage,
    manifest: Manifest,
    shard: int,
    content: ShardContent,
    non_finite: Mapping[str, int],
    provenance: Mapping[str, Any],
    digest: str | None = None,
) -> ShardRecord:
    """Store a shard durably, replacing an existing one, and return its unpublished record.

    Raises:
        OtherContentError: `digest` is given and differs from the content's; nothing was changed.
        OSError: it cannot be written; partial files were removed.
    """
    arrays = shard_arrays(content, manifest.codec_of) if len(content.stored) else {}
    sealed = _Sealed(manifest, shard, arrays, content_digest(arrays), non_finite, provenance)
    if digest not in (None, sealed.digest):
        raise OtherContentError(
            f"shard {shard}: its content digest is {sealed.digest}, but the lost shard's was"
            f" {digest}"
        )
    return storage.store_shard(
        sealed.name, lambda folder: _write(folder, sealed, len(content.input_ids))
    )


def _write(root: Path, sealed: _Sealed, tokens: int) -> ShardRecord:
    final = inside(root, SHARDS) / Path(sealed.name).name
    if not sealed.arrays:
        remove(final)
        return _record(root, sealed)
    manifest, staged = sealed.manifest, final.with_name(f"partial-{final.name}")
    remove(staged)
    try:
        attributes = shard_attributes(manifest.codec_of, sealed.seal)
        decoded = decoded_arrays(manifest.codec_of, manifest.fits, tokens, manifest.hidden_size)
        container_named(manifest.format).write(staged, sealed.arrays, attributes, decoded)
        remove(final)  # damaged, or never published
        publish(staged, final)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(staged)  # frees its space on a full disk
        raise
    return _record(root, sealed)


def restore_record(root: Path, manifest: Manifest, shard: int) -> ShardRecord | None:
    """Return the record of an unlisted shard, from its files; None if they are not that shard's."""
    path = root / shard_name(manifest, shard)
    if not path.exists():
        return None
    names = [*FIXED_ARRAYS, *map(hidden_states_name, manifest.layers)]
    try:
        for file in files_below(path):
            inside(root, file.relative_to(root).as_posix())
        container = container_named(manifest.format)
        attributes = container.attributes(path)
        arrays = read_arrays(container.locate(path, names))
        non_finite = json.loads(attributes.get("non_finite", "{}"))
        sealed = _Sealed(manifest, shard, arrays, content_digest(arrays), non_finite, {})
        if sealed.seal.items() <= attributes.items():
            return _record(root, sealed)
    except (CacheError, OSError, ValueError, TypeError, AttributeError):
        pass
    return None


def _cache_of(manifest: Manifest) -> str:
    return identity_hash(
        manifest.identity,
        layers=manifest.layers,
        shard_tokens=manifest.shard_tokens,
        format=manifest.format,
    )


def _record(root: Path, sealed: _Sealed) -> ShardRecord:
    arrays, manifest = sealed.arrays, sealed.manifest
    non_finite, provenance = dict(sealed.non_finite), dict(sealed.provenance)
    if not arrays:
        counts = np.zeros(0, np.int64)
        return ShardRecord(
            shard=sealed.number,
            files={},
            digest=sealed.digest,
            row_ids=[],
            text_bytes=0,
            lengths=counts,
            stored=counts,
            prefix_numbers=counts,
            prefixes=counts,
            checksums=np.zeros(0, np.uint64),
            state_bytes={},
            non_finite=non_finite,
            provenance=provenance,
        )
    text, starts = arrays["row_id_bytes"].tobytes(), arrays["row_id_offsets"].tolist()
    numbers = arrays["numbers"]
    return ShardRecord(
        shard=sealed.number,
        files={
            path.relative_to(root).as_posix(): (path.stat().st_size, checksum_of(path))
            for path in files_below(root / sealed.name)
        },
        digest=sealed.digest,
        row_ids=[text[start:stop].decode() for start, stop in itertools.pairwise(starts)],
        text_bytes=len(arrays["text_bytes"]),
        lengths=arrays["lengths"],
        stored=np.diff(arrays["offsets"]),
        prefix_numbers=numbers[numbers >= 0],
        prefixes=arrays["prefixes"],
        checksums=segment_checksums(
            arrays, packed_segments(arrays, manifest.codec_of, manifest.hidden_size)
        ),
        state_bytes={
            str(layer): arrays[hidden_states_name(layer)].nbytes for layer in manifest.layers
        },
        non_finite=non_finite,
        provenance=provenance,
    )

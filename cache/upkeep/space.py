"""Disk space: the exact size of a cache before it is written, and whether the disk has room."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from cache.containers import container_named
from cache.errors import CacheError
from cache.files import files_below
from cache.manifest import Manifest
from cache.names import SHARDS
from cache.shard.layout import array_specs, decoded_arrays, shard_attributes, shard_seal
from cache.storage import StorageLocation

_SEAL = shard_seal("0" * 64, 0, "0" * 64, {})
"""Has the size of the seal of any shard without left-out examples."""
_REST_OF_EXAMPLE = 64
"""Approximate bytes per example in the journal: row id, length, checksum."""
_REST = 16 << 20
"""Upper bound on the bytes of manifest, attachments and folders."""


def shard_size(
    manifest: Manifest,
    stored: Sequence[int],
    row_ids: Sequence[str],
    text_bytes: int,
    bits: Mapping[int, float] = MappingProxyType({}),
) -> int:
    """Return the bytes of a shard's files; exact for codecs with a fixed rate.

    Args:
        manifest: has format, codecs, layers and hidden size.
        stored: tokens of each segment, shared prefixes first.
        row_ids: of the examples.
        text_bytes: total size of their texts.
        bits: expected bits per value, by layer; for codecs without a fixed rate.
    """
    values = sum(stored) * manifest.hidden_size
    specs = array_specs(
        segments=len(stored),
        tokens=sum(stored),
        examples=len(row_ids),
        row_id_bytes=sum(len(row_id.encode()) for row_id in row_ids),
        text_bytes=text_bytes,
        state_bytes={layer: round(values * rate / 8) for layer, rate in bits.items()},
        hidden_size=manifest.hidden_size,
        codecs=manifest.codec_of,
    )
    decoded = decoded_arrays(manifest.codec_of, manifest.fits, sum(stored), manifest.hidden_size)
    return container_named(manifest.format).size(
        specs, shard_attributes(manifest.codec_of, _SEAL), decoded
    )


def readable_bytes(size: int) -> str:
    """Return a size in a readable unit."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= one:
            return f"{size / one:,.2f} {unit}"
    return f"{size:,} bytes"


def free_bytes(path: Path) -> int:
    """Return the bytes free for this user on the disk of a path that may not exist yet."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free


def room_needed(shards: Sequence[int], examples: int) -> int:
    """Return the bytes of a cache with shards of these sizes and this many examples."""
    return sum(shards) + examples * _REST_OF_EXAMPLE + (_REST if shards else 0)


def reclaimable_bytes(root: Path, published: Iterable[str]) -> int:
    """Return the bytes of files left by dead writers, which the next writer removes.

    Args:
        root: the cache's local folder.
        published: names of the files that the journal lists.
    """
    published = set(published)
    if not (root / SHARDS).is_dir():
        return 0
    total = 0
    for path in files_below(root / SHARDS):
        if path.relative_to(root).as_posix() not in published:
            with contextlib.suppress(FileNotFoundError):  # another process is writing
                total += path.lstat().st_size
    return total


def disk_needed(location: StorageLocation, needed: int) -> int:
    """Return how many of the bytes needed are on this machine's disk."""
    if location.copy_limit is None:
        return needed
    return max(0, min(needed, location.copy_limit) - location.copy_bytes)


def require_room(location: StorageLocation, needed: int) -> None:
    """Refuse to begin if the disk has too little room.

    Args:
        location: of the cache.
        needed: bytes from `room_needed`, minus those that will be freed.

    Raises:
        CacheError: the disk has too little room; names both sizes.
    """
    needed = disk_needed(location, needed)
    if needed > (free := free_bytes(location.folder)):
        raise CacheError(
            f"{location.folder}: {readable_bytes(needed)} more are needed, its disk has"
            f" {readable_bytes(free)} free; free some space, or use another disk"
        )

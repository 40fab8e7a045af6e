"""How much room a cache takes, exactly and before it is written, and whether the disk has it."""

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
from cache.storage import Where, place_of

_SEAL = shard_seal("0" * 64, 0, "0" * 64, {})
"""Takes the room that every shard's does from which nothing was left out."""
_REST_OF_EXAMPLE = 64
"""Bytes of an example in the journal, roughly: row id, length, checksum."""
_REST = 16 << 20
"""Bytes for manifest, attachments and folders, more than they take."""


def shard_size(
    manifest: Manifest,
    stored: Sequence[int],
    row_ids: Sequence[str],
    text_bytes: int,
    bits: Mapping[int, float] = MappingProxyType({}),
) -> int:
    """The bytes of a shard's files in the manifest's format and codecs: exactly, where these are of
    fixed rate.

    Args:
        manifest: says format, codecs, layers and width.
        stored: tokens of each segment; of the prefixes first, then of the examples.
        row_ids: of the examples.
        text_bytes: of their texts together.
        bits: what a value is expected to take in each layer whose codec is of no fixed rate.
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
    """A size for people, in the unit that suits it."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= one:
            return f"{size / one:,.2f} {unit}"
    return f"{size:,} bytes"


def free_bytes(path: Path) -> int:
    """Room left for this user on the disk where a path lies, or will lie."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free


def room_needed(shards: Sequence[int], examples: int) -> int:
    """Bytes for shards of these exact sizes that hold so many examples, with all that stands beside
    them in a cache."""
    return sum(shards) + examples * _REST_OF_EXAMPLE + (_REST if shards else 0)


def reclaimable_bytes(root: Path, published: Iterable[str]) -> int:
    """What dead writers left among the shards, and the next writer removes; `published` are the
    files that the journal names."""
    kept = set(published)
    if not (root / SHARDS).is_dir():
        return 0
    total = 0
    for path in files_below(root / SHARDS):
        if path.relative_to(root).as_posix() not in kept:
            with contextlib.suppress(
                FileNotFoundError
            ):  # another process is writing: it is in use, or published by now
                total += path.lstat().st_size
    return total


def disk_needed(where: Where, needed: int) -> int:
    """How many of the bytes that a cache needs more lie on this machine's disk: of an object
    store's, copies of some shards."""
    place = place_of(where)
    return (
        needed
        if place.most_held is None
        else max(0, min(needed, place.most_held) - place.held_bytes)
    )


def require_room(where: Where, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        where: the cache's folder, or its place in an object store.
        needed: bytes, as from `room_needed`, less what will be given back.

    Raises:
        CacheError: there is too little room; says how much there is and how much is needed.
    """
    place = place_of(where)
    needed = disk_needed(place, needed)
    if needed > (free := free_bytes(place.folder)):
        raise CacheError(
            f"{place.folder}: {readable_bytes(needed)} more are needed, its disk has"
            f" {readable_bytes(free)} free; free some space, or use another disk"
        )

"""How much room a cache takes, exactly and before it is written, and whether the disk has it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.codecs import codec_named
from cache.errors import CacheError
from cache.files import files_below
from cache.formats import format_named
from cache.manifest import Manifest
from cache.open_shard import SHARDS
from cache.shard import array_specs, shard_attributes, shard_seal

_SEAL = shard_seal("0" * 64, 0, "0" * 64, {})
"""Takes the room that every shard's does from which nothing was left out."""
_REST_OF_EXAMPLE = 64
"""Bytes of an example in the journal, roughly: row id, length, checksum."""
_REST = 16 << 20
"""Bytes for manifest, attachments and folders, more than they take."""


def shard_size(manifest: Manifest, lengths: Sequence[int], row_ids: Sequence[str]) -> int:
    """Exactly the bytes of a shard's files in the manifest's format and codec.

    Args:
        manifest: says format, codec, layers and width.
        lengths: tokens of each example.
        row_ids: their row ids.
    """
    codec = codec_named(manifest.codec)
    row_id_bytes = sum(len(row_id.encode()) for row_id in row_ids)
    specs = array_specs(lengths, row_id_bytes, manifest.layers, manifest.hidden_size, codec)
    return format_named(manifest.format).size(specs, shard_attributes(manifest.layers, codec, _SEAL))


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
    """Bytes for shards of these exact sizes that hold so many examples, with all that stands beside them in a cache."""
    return sum(shards) + examples * _REST_OF_EXAMPLE + (_REST if shards else 0)


def reclaimable_bytes(root: Path, published: Iterable[str]) -> int:
    """What dead writers left among the shards, and the next writer removes; `published` are the files that the journal names."""
    kept = set(published)
    if not (root / SHARDS).is_dir():
        return 0
    total = 0
    for path in files_below(root / SHARDS):
        if path.relative_to(root).as_posix() not in kept:
            with contextlib.suppress(FileNotFoundError):  # another process is writing: it is in use, or published by now
                total += path.lstat().st_size
    return total


def require_room(root: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        root: the cache's folder.
        needed: bytes, as from `room_needed`, less what will be given back.

    Raises:
        CacheError: there is too little room; says how much there is and how much is needed.
    """
    if needed > (free := free_bytes(root)):
        raise CacheError(
            f"{root}: {readable_bytes(needed)} more are needed, its disk has {readable_bytes(free)} free; "
            "free some space, or use another disk"
        )

"""How much room a cache takes, exactly and before it is written, and whether the disk has it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from cache.codecs import codec_named
from cache.errors import CacheError
from cache.formats import format_named
from cache.manifest import Manifest
from cache.shard import array_specs, shard_attributes

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
    return format_named(manifest.format).size(specs, shard_attributes(manifest.layers, codec))


def free_bytes(path: Path) -> int:
    """Room left for this user on the disk where a path lies, or will lie."""
    while not path.exists():
        path = path.absolute().parent
    return shutil.disk_usage(path).free


def room_needed(shards: Sequence[int], examples: int) -> int:
    """Bytes for shards of these exact sizes that hold so many examples, with all that stands beside them in a cache."""
    return sum(shards) + examples * _REST_OF_EXAMPLE + (_REST if shards else 0)


def require_room(root: Path, shards: Sequence[int], examples: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        root: the cache's folder.
        shards: exact sizes of the shards that are to be written.
        examples: how many examples they hold.

    Raises:
        CacheError: there is too little room; says how much there is and how much is needed.
    """
    needed = room_needed(shards, examples)
    if needed > (free := free_bytes(root)):
        raise CacheError(
            f"{root}: the cache needs {needed / 1e9:.2f} GB more, its disk has {free / 1e9:.2f} GB free; "
            "free some space, name a folder on another disk, or ask for fewer rows or layers"
        )

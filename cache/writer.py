"""Writing a cache: begin or continue one, then publish shard after shard."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cache.codecs import codec_named
from cache.errors import CacheError
from cache.example import Example
from cache.files import files_below, fsync_tree, publish, require_local, sha256_of
from cache.formats import format_named
from cache.identity import require_same_identity
from cache.journal import JOURNAL_NAME, ShardRecord, append_record, drop_unfinished_line, read_journal
from cache.lock import WriterLock
from cache.manifest import MANIFEST_NAME, AttachedFile, Manifest, read_manifest
from cache.shard import content_digest, shard_arrays, shard_attributes

ATTACHMENTS = "attachments"
SHARDS = "shards"
_OWN_NAMES = {".lock", ATTACHMENTS, SHARDS, MANIFEST_NAME, f"{MANIFEST_NAME}.partial", JOURNAL_NAME}


class CacheWriter:
    """Publishes shards into one cache folder. Get one from `write_cache`."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest
        self._format, self._codec = format_named(manifest.format), codec_named(manifest.codec)
        self.published = {record.shard: record for record in read_journal(root)}

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are still to be published."""
        return [shard for shard in range(self.manifest.shards) if shard not in self.published]

    def publish(self, shard: int, examples: Sequence[Example]) -> ShardRecord:
        """Write one shard and publish it: until this returns it does not exist, from then on it is whole and durable."""
        arrays = shard_arrays(examples, self._codec)
        name = f"{SHARDS}/{shard:06d}{self._format.suffix}"
        final = self.root / name
        staged = final.with_name(f"partial-{final.name}")
        _remove(staged)
        _remove(final)  # published by name but not in the journal: its writer died in between
        self._format.write(staged, arrays, shard_attributes(self.manifest.layers, self._codec))
        files = {
            f"{name}/{path.relative_to(staged).as_posix()}" if staged.is_dir() else name: (path.stat().st_size, sha256_of(path))
            for path in files_below(staged)
        }
        publish(staged, final)
        lengths = arrays["offsets"][1:] - arrays["offsets"][:-1]
        record = ShardRecord(shard, files, content_digest(arrays), [example.row_id for example in examples], lengths)
        append_record(self.root, record)
        self.published[shard] = record
        return record


@contextlib.contextmanager
def write_cache(root: Path, wanted: Manifest, attachments: Path) -> Iterator[CacheWriter]:
    """Begin a cache, or continue the one that stands there, alone.

    Args:
        root: the cache's folder; made if need be.
        wanted: what the cache is to hold. Its `attachments` field is filled in here.
        attachments: a folder whose files travel with the cache; copied when the cache is begun.

    Raises:
        CacheError: the folder holds something else, another run's cache, or another process writes to it.
    """
    require_continuable(root, wanted)
    root.mkdir(parents=True, exist_ok=True)
    with WriterLock(root):
        manifest = _continued(root, wanted) if (root / MANIFEST_NAME).exists() else _begun(root, wanted, attachments)
        yield CacheWriter(root, manifest)


def require_continuable(root: Path, wanted: Manifest) -> int:
    """Check, without touching anything, that a cache can be begun or continued here; the number of shards still missing.

    Raises:
        CacheError: the folder holds something else, or another run's cache.
    """
    require_local(root)
    for path in (root, *root.parents):
        if path.exists() and not path.is_dir():
            raise CacheError(f"{path}: is a file; --cache names a folder")
    if root.is_dir() and (strangers := {entry.name for entry in root.iterdir()} - _OWN_NAMES):
        raise CacheError(f"{root}: not a cache (it holds {min(strangers)!r}); choose a new folder for --cache")
    if not (root / MANIFEST_NAME).exists():
        return wanted.shards
    _same_cache(root, wanted)
    return wanted.shards - len(read_journal(root))


def _begun(root: Path, wanted: Manifest, attachments: Path) -> Manifest:
    for name in (ATTACHMENTS, SHARDS):
        _remove(root / name)
    shutil.copytree(attachments, root / ATTACHMENTS)
    (root / SHARDS).mkdir()
    fsync_tree(root)
    attached = tuple(
        AttachedFile(path.relative_to(root).as_posix(), path.stat().st_size, sha256_of(path))
        for path in files_below(root / ATTACHMENTS)
    )
    manifest = replace(wanted, attachments=attached)
    (root / JOURNAL_NAME).write_bytes(b"")
    manifest.write(root)
    return manifest


def _same_cache(root: Path, wanted: Manifest) -> Manifest:
    manifest = read_manifest(root)
    layout = ("format", "shard_tokens", "layers")
    require_same_identity(
        root,
        {**manifest.identity, **{name: getattr(manifest, name) for name in layout}},
        {**wanted.identity, **{name: getattr(wanted, name) for name in layout}},
    )
    return manifest


def _continued(root: Path, wanted: Manifest) -> Manifest:
    manifest = _same_cache(root, wanted)
    manifest.check_attachments(root)
    drop_unfinished_line(root)
    return manifest


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

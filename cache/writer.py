"""Writing a cache: begin or continue one, then publish shard after shard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.errors import DamagedCacheError
from cache.files import (
    MEND,
    bytes_below,
    checksum_of,
    copy_contents,
    files_below,
    fsync_tree,
    remove,
)
from cache.identity import require_same_identity
from cache.journal import begin_journal, read_journal, scan_journal
from cache.location import require_cache_place
from cache.manifest import AttachedFile, Manifest, parse_manifest, read_manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS
from cache.shard.content import ShardContent
from cache.shard.record import ShardRecord
from cache.shard.writer import store_shard
from cache.storage import Place, Publishing, Where, place_of


class CacheWriter:
    """Publishes shards into one cache. Get one from `write_cache`."""

    def __init__(self, place: Place, manifest: Manifest, journal: Publishing) -> None:
        self._place, self.manifest, self._journal = place, manifest, journal
        self.published = {record.shard: record for record in read_journal(place.folder, manifest)}

    def missing_shards(self) -> list[int]:
        """Numbers of the shards that are still to be published."""
        return [shard for shard in range(self.manifest.shards) if shard not in self.published]

    def publish(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> ShardRecord:
        """Write one shard and publish it: until this returns it does not exist, from then on it is
        whole and durable.

        Args:
            shard: its number.
            content: what it holds; nothing where all examples were left out.
            non_finite: examples left out because the teacher gave no finite states: tokens by row
                id.
            provenance: how the shard was made; recorded, not compared.

        Raises:
            CacheError: another process has taken over.
            OSError: the disk is full, or the cache's place has vanished. What was published before
                is untouched.
        """
        self._journal.require_in_place()
        record = store_shard(
            self._place, self.manifest, shard, content, non_finite or {}, provenance or {}
        )
        self.record(record)
        return record

    def record(self, stored: ShardRecord) -> None:
        """Publish a shard that has been stored in this cache's place, by whichever process.

        Raises:
            DamagedCacheError: its files are not here, or not of the size that was stored.
            OSError: the disk is full, or the cache's place has vanished.
        """
        self._journal.require_in_place()
        self._place.check_sizes(stored.files)
        self._journal.append(stored)
        self.published[stored.shard] = stored


@contextlib.contextmanager
def write_cache(where: Where, wanted: Manifest, attachments: Path) -> Iterator[CacheWriter]:
    """Begin a cache, or continue the one that stands there, alone.

    Args:
        where: the cache's folder, made if need be; or its place in an object store.
        wanted: what the cache is to hold. Its `attachments` field is filled in here.
        attachments: a folder whose files travel with the cache; copied when the cache is begun.

    Raises:
        CacheError: the folder holds something else, another run's cache, or another process writes
            to it.
    """
    place = place_of(where)
    require_continuable(place, wanted)
    root = place.folder
    root.mkdir(parents=True, exist_ok=True)
    with place.naming_errors(), place.alone():
        if (root / MANIFEST_NAME).exists():
            manifest = _continued(root, wanted)
        else:
            manifest = _begun(root, wanted, attachments)
            place.keep_beginning()
        with place.publishing() as journal:
            writer = CacheWriter(place, manifest, journal)
            yield writer
        if not writer.missing_shards():
            place.settle()


def require_continuable(where: Where, wanted: Manifest) -> list[int]:
    """Check, without touching anything, that a cache can be begun or continued here; the shards
    still missing.

    Raises:
        CacheError: the folder holds something else, or another run's cache.
    """
    place = place_of(where)
    with place.naming_errors():
        begun, root = require_cache_place(place), place.folder
        if not (root / MANIFEST_NAME).exists():
            if begun:
                _require_nothing_published(root)  # and again under the lock
            return list(range(wanted.shards))
        records = read_journal(root, _same_cache(root, wanted))
        place.check_sizes({name: told for record in records for name, told in record.files.items()})
    return sorted(set(range(wanted.shards)) - {record.shard for record in records})


def _require_nothing_published(root: Path) -> None:
    """A journal without a manifest is what a writer leaves that died at the very beginning; unless
    there is more.

    Raises:
        DamagedCacheError: shards were published here, or may have been.
    """
    journal = scan_journal(root)
    if journal.records or journal.damage or bytes_below(root / SHARDS):
        raise DamagedCacheError(f"{root / MANIFEST_NAME}: missing, yet there are shards; {MEND}")


def _begun(root: Path, wanted: Manifest, attachments: Path) -> Manifest:
    """Journal first: from then on the folder is known to be this project's; manifest last: from
    then on it is a cache."""
    if (root / JOURNAL_NAME).exists():
        _require_nothing_published(root)
    manifest = replace(wanted, attachments=attached_files(attachments))
    parse_manifest(manifest.as_json(), root / MANIFEST_NAME)
    begin_journal(root, manifest)
    for name in (ATTACHMENTS, SHARDS):
        remove(root / name)
    (root / ATTACHMENTS).mkdir()
    copy_contents(attachments, root / ATTACHMENTS)
    (root / SHARDS).mkdir()
    fsync_tree(root)
    manifest.write(root)
    return manifest


def attached_files(attachments: Path) -> tuple[AttachedFile, ...]:
    """The files of a folder as they will be attached."""
    return tuple(
        AttachedFile(
            f"{ATTACHMENTS}/{path.relative_to(attachments).as_posix()}",
            path.stat().st_size,
            checksum_of(path),
        )
        for path in files_below(attachments)
    )


def _same_cache(root: Path, wanted: Manifest) -> Manifest:
    manifest = read_manifest(root)
    layout = ("format", "shard_tokens", "layers", "codecs")
    require_same_identity(
        root,
        {**manifest.identity, **{name: getattr(manifest, name) for name in layout}},
        {**wanted.identity, **{name: getattr(wanted, name) for name in layout}},
    )
    return manifest


def _continued(root: Path, wanted: Manifest) -> Manifest:
    manifest = _same_cache(root, wanted)
    manifest.check_attachments(root)
    return manifest

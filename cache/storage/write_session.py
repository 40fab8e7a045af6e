"""Sessions that write a cache, and the order of their steps.

`StorageLocation.write` locks the location and returns a `WriteSession`. Its `publish` begins or
resumes the cache and returns a `PublishSession`; its `repair` returns a `RepairSession`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from cache.beginning import begin_locally, begun_manifest
from cache.files import files_below, inside, write_atomically
from cache.journal import Journal, read_journal
from cache.manifest import Manifest
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME
from cache.shard.record import ShardRecord
from cache.storage.interface import ReadSession, ShardStorage


class JournalAppender(Protocol):
    """Appends records to the journal of a locked location."""

    def require_in_place(self) -> None:
        """Check that the location still exists and is locked.

        Raises:
            CacheError: another process has taken over.
            OSError: the location has vanished.
        """
        ...

    def append(self, record: ShardRecord) -> None:
        """Publish a stored shard: from here on it exists.

        Raises:
            CacheError: it has too many examples, or another process has published it.
            OSError: the journal cannot be written; it is unchanged.
        """
        ...


class LockedFiles(ShardStorage, Protocol):
    """The files of a locked location. Every method raises if the lock was lost."""

    @property
    def folder(self) -> Path:
        """The local folder, in which files are written before they are put."""
        ...

    def put(self, names: Sequence[str]) -> None:
        """Store files of the local folder durably."""
        ...

    def delete(self, names: Sequence[str]) -> None:
        """Delete stored files, and the local ones."""
        ...

    def discard_unpublished(self) -> None:
        """Delete stored files left by a writer that died before it stored the manifest."""
        ...

    def journal(self) -> AbstractContextManager[JournalAppender]:
        """Open the journal for appending."""
        ...

    def finish_journal(self) -> None:
        """Store the journal in its final form; the local one is complete."""
        ...


class WriteSession:
    """The exclusive right to write to a location.

    Attributes:
        folder: the location's local folder, up to date.
        reading: reads the location.
    """

    def __init__(self, files: LockedFiles, reading: ReadSession) -> None:
        self._files, self.reading, self.folder = files, reading, files.folder

    @contextlib.contextmanager
    def publish(self, wanted: Manifest, attachments: Path) -> Iterator[PublishSession]:
        """Begin or resume the cache, and finish its journal when all shards are published.

        Args:
            wanted: the planned cache; its `attachments` field is filled in here.
            attachments: a folder of files to attach, copied if the cache is begun.

        Raises:
            CacheError: the location has another cache, or a damaged one.
        """
        if (self.folder / MANIFEST_NAME).exists():
            manifest = begun_manifest(self.folder, wanted)
            manifest.check_attachments(self.folder)
        else:
            manifest = self._begin(wanted, attachments)
        with self._files.journal() as journal:
            session = PublishSession(self._files, self.reading, journal, manifest)
            yield session
        if len(session.published) == manifest.shards:
            self._files.finish_journal()

    def _begin(self, wanted: Manifest, attachments: Path) -> Manifest:
        """Begin a cache; the manifest is stored last and makes it one."""
        manifest = begin_locally(self.folder, wanted, attachments)
        self._files.discard_unpublished()
        attached = files_below(self.folder / ATTACHMENTS)
        names = [path.relative_to(self.folder).as_posix() for path in attached]
        self._files.put([JOURNAL_NAME, *names])
        self._files.put([MANIFEST_NAME])
        return manifest

    def repair(self) -> RepairSession:
        """Return the session that replaces damaged files."""
        return RepairSession(self._files)


class PublishSession:
    """Stores and publishes the shards of one cache.

    Attributes:
        manifest: of the cache.
        published: records by shard number.
    """

    def __init__(
        self,
        files: LockedFiles,
        reading: ReadSession,
        journal: JournalAppender,
        manifest: Manifest,
    ) -> None:
        self._files, self._location, self._journal = files, reading.location, journal
        self.manifest = manifest
        self.published = {record.shard: record for record in read_journal(files.folder, manifest)}

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """See `ShardStorage.store_shard`; fails early if publishing is no longer possible."""
        self._journal.require_in_place()
        return self._files.store_shard(name, write)

    def publish(self, stored: ShardRecord) -> None:
        """Publish a shard that this or another process has stored.

        Raises:
            CacheError: another process has taken over, or has published the shard.
            DamagedCacheError: its files are missing or have another size than recorded.
            OSError: the disk is full, or the location has vanished.
        """
        self._journal.require_in_place()
        self._location.check_sizes(stored.files)
        self._journal.append(stored)
        self.published[stored.shard] = stored


class RepairSession:
    """Replaces files of a damaged cache, each durably."""

    def __init__(self, files: LockedFiles) -> None:
        self._files, self._folder = files, files.folder

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """See `ShardStorage.store_shard`; `put_journal` publishes it."""
        return self._files.store_shard(name, write)

    def put_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        manifest.write(self._folder)
        self._files.put([MANIFEST_NAME])

    def put_journal(self, journal: Journal) -> None:
        """Replace the journal."""
        journal.write(self._folder)
        self._files.put([JOURNAL_NAME])
        self._files.finish_journal()

    def put_attachment(self, name: str, content: bytes) -> None:
        """Replace an attached file; `name` is relative to the cache."""
        target = inside(self._folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
        self._files.put([name])

    def delete_attachment(self, name: str) -> None:
        """Delete a file that was not attached when the cache was begun."""
        self._files.delete([name])

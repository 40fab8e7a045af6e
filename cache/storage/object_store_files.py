"""Writing the objects of a cache from local files, under the lease."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from cache.files import remove
from cache.journal_writer import JournalWriter
from cache.names import ATTACHMENTS, JOURNAL_NAME, SHARDS
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket
from cache.storage.journal_entries import ENTRIES, EntryAppender
from cache.storage.lease import Lease
from cache.storage.local_copies import LocalCopies


def store_objects_of_shard(
    bucket: Bucket,
    copies: LocalCopies,
    name: str,
    write: Callable[[Path], ShardRecord],
    before_upload: Callable[[], None] = lambda: None,
) -> ShardRecord:
    """Write a shard locally and upload it; keep the local copy while there is room."""
    copies.folder.joinpath(SHARDS).mkdir(parents=True, exist_ok=True)
    with copies.lock(PurePosixPath(name).name):
        record = write(copies.folder)
        before_upload()
        bucket.upload(copies.folder, record.files)
        copies.make_room(0)
    return record


class LockedObjects:
    """The objects below a prefix, under its lease; see `LockedFiles`."""

    def __init__(self, bucket: Bucket, copies: LocalCopies, lease: Lease) -> None:
        self.folder = copies.folder
        self._bucket, self._copies, self._lease = bucket, copies, lease

    def put(self, names: Sequence[str]) -> None:
        """Upload local files."""
        self._lease.require_valid()
        self._bucket.upload(self.folder, names)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects and their local copies."""
        self._lease.require_valid()
        self._bucket.delete(names)
        for name in names:
            remove(self.folder / name)

    def discard_unpublished(self) -> None:
        """Delete all entries, shards and attachments: none are published without a manifest."""
        self._lease.require_valid()
        for below in (ENTRIES, SHARDS, ATTACHMENTS):
            self._bucket.delete(self._bucket.sizes(below))

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """Store a shard; check the lease again before its objects are replaced."""
        return store_objects_of_shard(
            self._bucket, self._copies, name, write, self._lease.require_valid
        )

    @contextlib.contextmanager
    def journal(self) -> Iterator[EntryAppender]:
        """Open the local journal; records are also put as entries."""
        with JournalWriter(self.folder) as local:
            yield EntryAppender(self._bucket, local, self._lease.require_valid)

    def finish_journal(self) -> None:
        """Merge the entries into one journal, as in a folder."""
        entries = self._bucket.sizes(ENTRIES)
        if entries:
            self.put([JOURNAL_NAME])
            self._bucket.delete(entries)

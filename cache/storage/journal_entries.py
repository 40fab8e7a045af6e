"""Journal lines in an object store: one object each until the cache is complete."""

from __future__ import annotations

from collections.abc import Callable

from cache.errors import CacheError
from cache.journal import shard_of_line
from cache.journal_writer import JournalWriter
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket, ConflictError

ENTRIES = "journal"


def merge_entries(journal: bytes | None, entries: list[bytes]) -> bytes | None:
    """Add missing entries to a journal, and return it; None if there are neither.

    Lines of the journal take precedence: an entry for the same shard was left by a writer that died
    or lost its lease.
    """
    if journal is None and not entries:
        return None
    listed = {shard_of_line(line) for line in (journal or b"").splitlines()[1:]}
    return (journal or b"") + b"".join(
        line for line in entries if shard_of_line(line.strip()) not in listed
    )


class EntryAppender:
    """Publishes shards as entries, and appends them to the local journal."""

    def __init__(
        self, bucket: Bucket, local: JournalWriter, require_lease: Callable[[], None]
    ) -> None:
        """Publish into a bucket.

        Args:
            bucket: the cache's.
            local: the local copy of the journal.
            require_lease: raises if the lease was lost.
        """
        self._bucket, self._local, self.require_in_place = bucket, local, require_lease

    def append(self, record: ShardRecord) -> None:
        """See `JournalAppender.append`; an existing entry is never replaced."""
        line = self._local.line_of(record)
        self.require_in_place()
        try:
            self._bucket.put_if(f"{ENTRIES}/{record.shard:06d}.jsonl", line, None)
        except ConflictError:
            raise CacheError(
                f"{self._bucket.address}: another process has published shard {record.shard}; run"
                " the same command again to continue"
            ) from None
        self._local.append(record)

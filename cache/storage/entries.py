"""Lines of a journal in an object store: an object each until the cache is complete, since none can
be appended to."""

from __future__ import annotations

from collections.abc import Callable

from cache.errors import CacheError
from cache.journal import shard_of_line
from cache.journal_writer import JournalWriter
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket, TakenError

ENTRIES = "journal"


def journal_with_entries(journal: bytes | None, entries: list[bytes]) -> bytes | None:
    """A journal with those entries that are not in it yet; None where there is neither.

    A shard that the journal names already counts as it says: what else is said of it was left by a
    writer that died, or that was taken over from."""
    if journal is None and not entries:
        return None
    named = {shard_of_line(line) for line in (journal or b"").splitlines()[1:]}
    return (journal or b"") + b"".join(
        line for line in entries if shard_of_line(line.strip()) not in named
    )


class Entries:
    """Publishes shards by entries; the journal among the copies follows."""

    def __init__(
        self, bucket: Bucket, copy: JournalWriter, require_lease: Callable[[], None]
    ) -> None:
        """Publish into a bucket.

        Args:
            bucket: of the cache.
            copy: the journal among the copies.
            require_lease: raises where this process may not write any longer.
        """
        self._bucket, self._copy, self.require_in_place = bucket, copy, require_lease

    def append(self, record: ShardRecord) -> None:
        """As `Publishing.append`: an entry is made only where there is none."""
        line = self._copy.line_of(record)
        self.require_in_place()
        try:
            self._bucket.put_if(f"{ENTRIES}/{record.shard:06d}.jsonl", line, None)
        except TakenError:
            raise CacheError(
                f"{self._bucket.address}: another process has published shard {record.shard}; run"
                " the same command again to go on"
            ) from None
        self._copy.append(record)

"""Appending to the journal of a cache that is being written."""

from __future__ import annotations

from pathlib import Path

from cache.durable_lines import DurableLines
from cache.errors import CacheError
from cache.files import inside
from cache.journal import LONGEST_LINE
from cache.names import JOURNAL_NAME
from cache.shard.record import ShardRecord


class JournalWriter(DurableLines):
    """Appends records to a journal; each is durable when `append` returns."""

    def __init__(self, root: Path) -> None:
        """Open the journal and cut off an unfinished last line."""
        super().__init__(
            inside(root, JOURNAL_NAME),
            "the cache's folder was removed or replaced while it was written",
        )

    def line_of(self, record: ShardRecord) -> bytes:
        """Return the line that `append` would write.

        Raises:
            CacheError: the shard has too many examples for a line.
        """
        line = record.line()
        if len(line) > LONGEST_LINE:
            raise CacheError(
                f"shard {record.shard}: too many examples ({len(record.row_ids)}); choose smaller"
                " shards"
            )
        return line

    def append(self, record: ShardRecord) -> None:
        """Add a shard to the journal: from here on it exists.

        Raises:
            CacheError: the shard has too many examples for a line.
            OSError: the line cannot be written; the journal is unchanged.
        """
        self.append_line(self.line_of(record))

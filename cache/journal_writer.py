"""Appending to the journal of a cache that is being written."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from cache.errors import CacheError
from cache.files import inside
from cache.journal import LONGEST_LINE
from cache.names import JOURNAL_NAME
from cache.shard.record import ShardRecord


class JournalWriter:
    """Appends records to a journal; each is durable when `append` returns."""

    def __init__(self, root: Path) -> None:
        """Open the journal and cut off an unfinished last line."""
        self._path = inside(root, JOURNAL_NAME)
        self._stream = self._path.open("r+b", buffering=0)
        content = self._path.read_bytes()
        self._stream.truncate(content.rfind(b"\n") + 1)

    def require_in_place(self) -> None:
        """Check that the open journal is still the one at its path.

        Raises:
            FileNotFoundError: the cache's folder was removed, unmounted or replaced.
        """
        if not self._path.exists() or not os.path.samestat(
            self._path.stat(), os.fstat(self._stream.fileno())
        ):
            raise FileNotFoundError(
                0,
                "the cache's folder was removed or replaced while it was written",
                str(self._path),
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
        line = self.line_of(record)
        self.require_in_place()
        end = self._stream.seek(0, os.SEEK_END)
        try:
            if self._stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(self._stream.fileno())
        except OSError as error:
            self._stream.truncate(end)
            # fsync itself names no file
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

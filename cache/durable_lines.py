"""A file of lines that is appended to durably."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class DurableLines:
    """Appends lines to an existing file; each is durable when `append_line` returns."""

    def __init__(self, path: Path, removed: str) -> None:
        """Open the file and cut off an unfinished last line.

        Args:
            path: of the file.
            removed: the error if the file disappears while it is open.
        """
        self._path, self._removed = path, removed
        self._stream = path.open("r+b", buffering=0)
        content = path.read_bytes()
        self._stream.truncate(content.rfind(b"\n") + 1)

    def require_in_place(self) -> None:
        """Check that the open file is still the one at its path.

        Raises:
            FileNotFoundError: it was removed, unmounted or replaced.
        """
        if not self._path.exists() or not os.path.samestat(
            self._path.stat(), os.fstat(self._stream.fileno())
        ):
            raise FileNotFoundError(0, self._removed, str(self._path))

    def append_line(self, line: bytes) -> None:
        """Add a line, which ends with a newline.

        Raises:
            OSError: it cannot be written; the file is unchanged.
        """
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()

"""One writer at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from cache.errors import CacheError


class WriterLock:
    """An advisory lock on a cache folder, held by the open file: the kernel drops it when its holder dies."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> WriterLock:
        """Take the lock.

        Raises:
            CacheError: another process is writing to this cache.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise CacheError(f"{self._path.parent}: another process is writing to this cache; wait for it or stop it") from None
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def require_unlocked(root: Path) -> None:
    """Find out early, before anything costly is done, that another process is writing.

    Raises:
        CacheError: it is.
    """
    if (root / ".lock").is_file():
        with WriterLock(root):
            pass

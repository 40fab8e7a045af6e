"""File locks: one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from cache.errors import CacheError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of network file systems mounted without locks, or without their lock service."""
_REMEDY = (
    "choose a folder on another one, or have it mounted with locks (Lustre: -o flock; NFS: its lock"
    " service)"
)


def take_lock(descriptor: int, operation: int, path: Path, remedy: str) -> bool:
    """Lock an open file; return False if it is locked elsewhere and `operation` does not wait.

    Args:
        descriptor: of the file.
        operation: as for `fcntl.flock`.
        path: the folder that errors name.
        remedy: what to do if its file system has no locks.

    Raises:
        CacheError: the file system has no locks.
        OSError: the lock cannot be taken for another reason.
    """
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        denied = error.errno == errno.EACCES and operation & fcntl.LOCK_NB  # CIFS
        if isinstance(error, BlockingIOError) or denied:
            return False
        if error.errno in _NO_LOCKS:
            raise CacheError(
                f"{path}: its file system has no locks ({error.strerror}), so concurrent"
                f" writers cannot be excluded; {remedy}"
            ) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


class FileLock:
    """An advisory lock on a file; the kernel releases it when the process dies."""

    def __init__(self, path: Path, locked: Path, written: str) -> None:
        """Prepare the lock.

        Args:
            path: of the file that is locked, which is never removed.
            locked: what the lock protects, named in messages.
            written: ends the sentence "another process is writing …".
        """
        self._path, self._locked, self._written = path, locked, written
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            CacheError: another process has it, or the file system has no locks.
        """
        descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            exclusive = fcntl.LOCK_EX | fcntl.LOCK_NB
            if not take_lock(descriptor, exclusive, self._path.parent, _REMEDY):
                raise CacheError(
                    f"{self._locked}: another process is writing {self._written}; wait for it or"
                    " stop it"
                )
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def require_locked(self) -> None:
        """Refuse to write after the lock was released.

        Raises:
            RuntimeError: it was released.
        """
        if self._descriptor is None:
            raise RuntimeError(f"{self._locked}: written after its lock was released")


class WriterLock(FileLock):
    """The lock on a cache's folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / ".lock", root, "to this cache")


def require_unlocked(root: Path) -> None:
    """Fail before costly work if another process is writing.

    Raises:
        CacheError: another process is writing.
    """
    if (root / ".lock").is_file():
        with WriterLock(root):
            pass

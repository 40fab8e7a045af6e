"""One writer at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from cache.errors import CacheError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What network file systems answer that were mounted without locks, or whose lock service is not
there."""
_MEND = (
    "choose a folder on another one, or have it mounted with locks (Lustre: -o flock; NFS: its lock"
    " service)"
)


def take_lock(descriptor: int, how: int, path: Path, mend: str) -> bool:
    """Lock an open file; False where another process has, and `how` says not to wait.

    Args:
        descriptor: of the file.
        how: as `fcntl.flock` takes it.
        path: of the folder that is to be named where its file system has no locks.
        mend: what to do then.

    Raises:
        CacheError: the file system has no locks.
        OSError: the lock cannot be taken for another reason.
    """
    try:
        fcntl.flock(descriptor, how)
    except OSError as error:
        if isinstance(error, BlockingIOError) or (
            error.errno == errno.EACCES and how & fcntl.LOCK_NB
        ):  # EACCES: CIFS
            return False
        if error.errno in _NO_LOCKS:
            raise CacheError(
                f"{path}: its file system has no locks ({error.strerror}), so processes cannot be"
                f" kept apart; {mend}"
            ) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


class WriterLock:
    """An advisory lock on a cache folder, held by the open file: the kernel drops it when its
    holder dies."""

    def __init__(self, root: Path) -> None:
        self._path = root / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> WriterLock:
        """Take the lock.

        Raises:
            CacheError: another process is writing to this cache, or its file system has no locks.
        """
        descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            if not take_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, self._path.parent, _MEND):
                raise CacheError(
                    f"{self._path.parent}: another process is writing to this cache; wait for it or"
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


def require_unlocked(root: Path) -> None:
    """Find out early, before anything costly is done, that another process is writing.

    Raises:
        CacheError: it is.
    """
    if (root / ".lock").is_file():
        with WriterLock(root):
            pass

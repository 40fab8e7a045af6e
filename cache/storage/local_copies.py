"""Local copies of remote shards, shared by a machine's processes; least recently used go first."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cache.files import bytes_below, remove
from cache.lock import take_lock
from cache.names import SHARDS
from cache.storage.interface import Pin

_EVICTION_LOCK = ".room"
_PARTIAL = "partial-"
_PRIVATE = "apart-"
_CACHE, _LOCKS = "cache", "locks"


class LocalCopies:
    """The local copies of one remote cache; the limit applies to those of all caches together.

    `ROOT/<cache>/cache` is laid out like a cache; `ROOT/<cache>/locks` has a lock file per shard,
    locked shared by readers, and exclusively for downloading and removing. The kernel releases the
    locks of a dead process.
    """

    def __init__(self, root: Path, cache: str, limit: int) -> None:
        """Create nothing yet.

        Args:
            root: folder of the local copies of all remote caches.
            cache: name of this one.
            limit: bytes that all shards may take; pinned ones may exceed it.
        """
        self._root, self._limit = root, limit
        self.folder = root / cache / _CACHE
        self._locks = root / cache / _LOCKS

    def lock(self, name: str) -> FileLock:
        """Lock a shard, or another name, exclusively among the processes of this machine."""
        self._make_folders()
        lock = FileLock(self._locks / name)
        lock.take(fcntl.LOCK_EX)
        return lock

    def is_locked(self, name: str) -> bool:
        """Return whether a name is locked exclusively."""
        with FileLock(self._locks / name) as lock:
            return not lock.take(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def pin(
        self, shard: str, download: Callable[[Path], None], *, refetch: bool = False
    ) -> FileLock:
        """Keep a shard's local copy until the returned lock is released.

        Args:
            shard: name of its file or folder.
            download: downloads it to a path; called if there is no copy.
            refetch: replace an existing copy.
        """
        self._make_folders()
        lock = FileLock(self._locks / shard)
        try:
            self._fetch(lock, self.folder / SHARDS / shard, download, refetch=refetch)
        except BaseException:
            lock.release()
            raise
        with contextlib.suppress(OSError):  # with an older time of use it is evicted earlier
            os.utime(self._locks / shard)
        return lock

    def _make_folders(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(exist_ok=True)

    def _fetch(
        self, lock: FileLock, target: Path, download: Callable[[Path], None], *, refetch: bool
    ) -> None:
        """Return with the shard locked shared and its copy in place."""
        while True:
            lock.take(fcntl.LOCK_SH)
            if not refetch and target.exists():
                return
            lock.take(fcntl.LOCK_EX)  # not atomic: another process may have locked it in between
            if refetch or not target.exists():
                target.parent.mkdir(exist_ok=True)
                _discard(target)
                download(_partial(target))
                _partial(target).replace(target)
                refetch = False

    def make_room(self, size: int, reserve: Callable[[], None] = lambda: None) -> None:
        """Remove least recently used shards until `size` more bytes are within the limit.

        Args:
            size: bytes needed.
            reserve: allocates them on disk, before other processes make room.
        """
        with FileLock(self._root / _EVICTION_LOCK) as eviction:
            eviction.take(fcntl.LOCK_EX)
            sizes = self._sizes()
            used = sum(sizes.values())
            for path in sorted(sizes, key=_last_used):
                unfinished = path.name.startswith(_PARTIAL)  # a download in progress, or abandoned
                with FileLock(_lock_of(path)) as lock:
                    if (unfinished or used + size > self._limit) and lock.take(
                        fcntl.LOCK_EX | fcntl.LOCK_NB
                    ):
                        _discard(path)
                        used -= sizes[path]
            reserve()

    def total_bytes(self) -> int:
        """Return the size of the copies of all remote caches."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[Path, int]:
        return {path: bytes_below(path) for path in self._root.glob(f"*/{_CACHE}/{SHARDS}/*")}

    @contextlib.contextmanager
    def private_root(self) -> Iterator[Path]:
        """Make a folder for this process's own copies; remove such folders of dead processes."""
        self._root.mkdir(parents=True, exist_ok=True)
        processes = Path("/proc")
        for left in self._root.glob(f"{_PRIVATE}*") if (processes / "self").exists() else ():
            if not (processes / left.name.removeprefix(_PRIVATE).split("-")[0]).exists():
                remove(left)
        prefix = f"{_PRIVATE}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self._root) as folder:
            yield Path(folder)


class FileLock(Pin):
    """An open lock file; garbage collection closes it, which releases the lock."""

    __slots__ = ("_descriptor", "_folder")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor, self._folder = -1, path.parent
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )

    def __enter__(self) -> FileLock:
        return self

    def take(self, operation: int) -> bool:
        """Lock the file; return False if it is locked elsewhere and `operation` does not wait.

        Raises:
            CacheError: the file system has no locks.
        """
        remedy = "choose a folder on a local disk with --copies"
        return take_lock(self._descriptor, operation, self._folder, remedy)

    def release(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


def _partial(target: Path) -> Path:
    return target.with_name(f"{_PARTIAL}{target.name}")


def _discard(path: Path) -> None:
    """Remove a copy; a crash leaves no incomplete one under its name."""
    if path.name.startswith(_PARTIAL):
        remove(path)
        return
    remove(_partial(path))
    if path.exists():
        path.replace(_partial(path))
        remove(_partial(path))


def _lock_of(shard: Path) -> Path:
    return shard.parents[2] / _LOCKS / shard.name.removeprefix(_PARTIAL)


def _last_used(shard: Path) -> float:
    lock = _lock_of(shard)
    return lock.stat().st_mtime if lock.exists() else 0.0


def folder_name(address: str, endpoint: str | None) -> str:
    """Return a readable, unique folder name for a remote cache."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", address.removeprefix("s3://")).strip("-")[:60]
    return f"{plain}-{hashlib.sha256(f'{endpoint} {address}'.encode()).hexdigest()[:12]}"

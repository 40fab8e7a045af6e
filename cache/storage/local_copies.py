"""Copies of remote shards on this machine, shared by its processes, within a limit: those used last
stay."""

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
from cache.storage.interface import Hold

_ROOM = ".room"
_PARTIAL = "partial-"
_APART = "apart-"
_CACHE, _LOCKS = "cache", "locks"


class Copies:
    """The copies of one remote cache; those of all remote caches together stay within the limit.

    `FOLDER/<cache>/cache` is laid out as a cache is, `FOLDER/<cache>/locks` has a file for each
    shard: who reads the shard holds it shared, who brings or removes it holds it alone. The kernel
    lets go of what a process held that dies."""

    def __init__(self, folder: Path, cache: str, limit: int) -> None:
        """Name the copies; nothing is made yet.

        Args:
            folder: of all remote caches' copies.
            cache: name of this one.
            limit: bytes of all shards, but for those that are being read.
        """
        self._root, self._limit = folder, limit
        self.folder = folder / cache / _CACHE
        self._locks = folder / cache / _LOCKS

    def make(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(exist_ok=True)

    def alone(self, name: str) -> Hold:
        """Hold a shard, or whatever else a name stands for, alone among the processes of this
        machine."""
        self.make()
        locked = _Locked(self._locks / name)
        locked.take(fcntl.LOCK_EX)
        return locked

    def is_held(self, name: str) -> bool:
        """Whether somebody holds a name alone."""
        with _Locked(self._locks / name) as locked:
            return not locked.take(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def hold(self, shard: str, bring: Callable[[Path], None], *, anew: bool = False) -> Hold:
        """A shard is there for as long as what this returns is held.

        Args:
            shard: name of its file or folder.
            bring: makes a copy at the path given; called where there is none.
            anew: replace the copy that is there.
        """
        self.make()
        locked = _Locked(self._locks / shard)
        try:
            self._bring_under(locked, self.folder / SHARDS / shard, bring, anew=anew)
        except BaseException:
            locked.let_go()
            raise
        with contextlib.suppress(OSError):  # where times cannot be set, others go first
            os.utime(self._locks / shard)
        return locked

    def _bring_under(
        self, locked: _Locked, target: Path, bring: Callable[[Path], None], *, anew: bool
    ) -> None:
        """Lock a shard shared, and have it."""
        while True:
            locked.take(fcntl.LOCK_SH)
            if not anew and target.exists():
                return
            locked.take(fcntl.LOCK_EX)  # lets others in between: look again
            if anew or not target.exists():
                target.parent.mkdir(exist_ok=True)
                _discard(target)
                bring(_partial(target))
                _partial(target).replace(target)
                anew = False

    def make_room(self, size: int, take: Callable[[], None] = lambda: None) -> None:
        """Remove the shards used longest ago until so many bytes more are within the limit; those
        being read stay.

        Args:
            size: bytes that are to come.
            take: takes that room, before anybody else counts what there is.
        """
        with _Locked(self._root / _ROOM) as room:
            room.take(fcntl.LOCK_EX)
            sizes = self._sizes()
            held = sum(sizes.values())
            for path in sorted(sizes, key=_last_used):
                unfinished = path.name.startswith(_PARTIAL)  # somebody is bringing it, or has died
                with _Locked(_lock_of(path)) as locked:
                    if (unfinished or held + size > self._limit) and locked.take(
                        fcntl.LOCK_EX | fcntl.LOCK_NB
                    ):
                        _discard(path)
                        held -= sizes[path]
            take()

    def held_bytes(self) -> int:
        """Bytes that all copies take."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[Path, int]:
        return {path: bytes_below(path) for path in self._root.glob(f"*/{_CACHE}/{SHARDS}/*")}

    @contextlib.contextmanager
    def apart(self) -> Iterator[Path]:
        """A folder for copies that nobody shares; it goes with its process, at the latest when
        another one looks for its own."""
        self._root.mkdir(parents=True, exist_ok=True)
        processes = Path("/proc")
        for left in self._root.glob(f"{_APART}*") if (processes / "self").exists() else ():
            if not (processes / left.name.removeprefix(_APART).split("-")[0]).exists():
                remove(left)
        with tempfile.TemporaryDirectory(
            prefix=f"{_APART}{os.getpid()}-", dir=self._root
        ) as folder:
            yield Path(folder)


class _Locked(Hold):
    """An open lock file; closed when nobody holds it any longer."""

    __slots__ = ("_descriptor", "_folder")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor, self._folder = -1, path.parent
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )

    def __enter__(self) -> _Locked:
        return self

    def take(self, how: int) -> bool:
        """Lock it, or say that somebody else has.

        Raises:
            CacheError: the file system has no locks.
        """
        return take_lock(
            self._descriptor, how, self._folder, "name a folder of a local disk with --copies"
        )

    def let_go(self) -> None:
        """As `Hold.let_go`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.let_go()


def _partial(target: Path) -> Path:
    return target.with_name(f"{_PARTIAL}{target.name}")


def _discard(path: Path) -> None:
    """Remove a copy, of which nothing is there any longer from the first moment on."""
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


def name_of(address: str, endpoint: str | None) -> str:
    """A folder's name for a remote cache, that tells a person which."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", address.removeprefix("s3://")).strip("-")[:60]
    return f"{plain}-{hashlib.sha256(f'{endpoint} {address}'.encode()).hexdigest()[:12]}"

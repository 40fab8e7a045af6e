"""A cache in a local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cache.files import check_file, files_below, remove
from cache.lock import WriterLock, require_unlocked
from cache.storage.interface import Pin

if TYPE_CHECKING:
    from cache.journal_writer import JournalWriter
    from cache.shard.record import ShardRecord
    from cache.storage.write_session import WriteSession

_PIN = Pin()


class FolderLocation:
    """A local folder; its files are the cache."""

    endpoint = None
    is_remote = False
    copy_limit = None
    copy_bytes = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FolderLocation) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def __str__(self) -> str:
        return self.address

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.folder)

    @property
    def recorded_address(self) -> str:
        """The folder's absolute path."""
        return str(self.folder.resolve())

    def reporting_address(self) -> AbstractContextManager[None]:
        """Do nothing: errors already name the folder."""
        return contextlib.nullcontext()

    def top_level_names(self) -> set[str]:
        """See `StorageLocation.top_level_names`."""
        return {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()

    def file_names(self) -> Iterator[str]:
        """See `StorageLocation.file_names`."""
        return (path.relative_to(self.folder).as_posix() for path in files_below(self.folder))

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """See `StorageLocation.check_sizes`."""
        for name, (size, _) in files.items():
            check_file(self.folder, name, size, None)

    def require_unlocked(self) -> None:
        """See `StorageLocation.require_unlocked`."""
        require_unlocked(self.folder)

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """Write the shard into the folder, which is the storage."""
        return write(self.folder)

    def read(self) -> FolderReadSession:
        """See `StorageLocation.read`."""
        return FolderReadSession(self)

    def read_uncached(self) -> AbstractContextManager[FolderReadSession]:
        """See `StorageLocation.read_uncached`."""
        return contextlib.nullcontext(self.read())

    @contextlib.contextmanager
    def write(self) -> Iterator[WriteSession]:
        """See `StorageLocation.write`."""
        from cache.storage.write_session import WriteSession  # imports NumPy

        self.folder.mkdir(parents=True, exist_ok=True)
        with WriterLock(self.folder) as lock:
            yield WriteSession(_LockedFolder(self.folder, lock), self.read())


class FolderReadSession:
    """Reads a cache from its folder."""

    def __init__(self, location: FolderLocation) -> None:
        self.location, self.folder = location, location.folder

    def pin(
        self,
        record: ShardRecord,
        *,
        refetch: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Pin:
        """Return a pin that does nothing: the files stay where they are."""
        return _PIN

    def pin_unrecorded(self, name: str) -> Pin:
        """Return a pin that does nothing: the files stay where they are."""
        return _PIN

    def prefetch(self, records: Sequence[ShardRecord]) -> None:
        """Do nothing: all files are local."""

    def close(self) -> None:
        """Do nothing."""


class _LockedFolder:
    """The files of a locked folder; files written there are stored."""

    def __init__(self, folder: Path, lock: WriterLock) -> None:
        self.folder, self._lock = folder, lock

    def put(self, names: Sequence[str]) -> None:
        self._lock.require_locked()

    def delete(self, names: Sequence[str]) -> None:
        self._lock.require_locked()
        for name in names:
            remove(self.folder / name)

    def discard_unpublished(self) -> None:
        self._lock.require_locked()

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        self._lock.require_locked()
        return write(self.folder)

    def journal(self) -> JournalWriter:
        from cache.journal_writer import JournalWriter  # imports NumPy

        self._lock.require_locked()
        return JournalWriter(self.folder)

    def finish_journal(self) -> None:
        self._lock.require_locked()

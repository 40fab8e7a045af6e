"""A cache in a folder of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files import check_file, files_below
from cache.lock import WriterLock, require_unlocked
from cache.storage.interface import Hold, Place, Publishing

if TYPE_CHECKING:
    from cache.shard.record import ShardRecord

_HELD = Hold()


class Folder:
    """A cache in a folder of this machine: all is where it belongs."""

    endpoint = None
    most_held = None
    held_bytes = 0
    is_remote = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self.folder)

    @property
    def recorded(self) -> str:
        """As `Place.recorded`."""
        return str(self.folder.resolve())

    def naming_errors(self) -> AbstractContextManager[None]:
        """As `Place.naming_errors`."""
        return contextlib.nullcontext()

    def refresh(self) -> None:
        """As `Place.refresh`."""

    def entries(self) -> set[str]:
        """As `Place.entries`."""
        return {entry.name for entry in self.folder.iterdir()} if self.folder.is_dir() else set()

    def names(self) -> Iterator[str]:
        """As `Place.names`."""
        return (path.relative_to(self.folder).as_posix() for path in files_below(self.folder))

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """As `Place.check_sizes`."""
        for name, (size, _) in files.items():
            check_file(self.folder, name, size, None)

    def hold(
        self,
        record: ShardRecord,
        *,
        anew: bool = False,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Hold:
        """As `Place.hold`."""
        return _HELD

    def hold_named(self, shard: str) -> Hold:
        """As `Place.hold_named`."""
        return _HELD

    def apart(self) -> AbstractContextManager[Place]:
        """As `Place.apart`."""
        return contextlib.nullcontext(self)

    def claim(self, shard: str) -> Hold:
        """As `Place.claim`."""
        return _HELD

    def alone(self) -> AbstractContextManager[Any]:
        """As `Place.alone`."""
        return WriterLock(self.folder)

    def require_unlocked(self) -> None:
        """As `Place.require_unlocked`."""
        require_unlocked(self.folder)

    def keep_beginning(self) -> None:
        """As `Place.keep_beginning`: it was written durably."""

    def keep_shard(self, record: ShardRecord) -> None:
        """As `Place.keep_shard`: it was stored durably."""

    def keep(self, names: Sequence[str]) -> None:
        """As `Place.keep`: they were written durably."""

    def remove(self, names: Sequence[str]) -> None:
        """As `Place.remove`."""

    def publishing(self) -> AbstractContextManager[Publishing]:
        """As `Place.publishing`."""
        from cache.journal_writer import JournalWriter  # imports NumPy

        return JournalWriter(self.folder)

    def settle(self) -> None:
        """As `Place.settle`."""

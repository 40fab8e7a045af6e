"""Where a cache is: a folder of this machine, or an object store (`cache.objects`) with copies of what is in use here."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from cache.errors import CacheError
from cache.files import check_file, files_below
from cache.journal import JournalWriter, ShardRecord
from cache.lock import WriterLock, require_unlocked


class Publishing(Protocol):
    """Publishes shards in a place that this process alone writes to."""

    def require_in_place(self) -> None:
        """Make sure that what is written next will lie where the journal does.

        Raises:
            CacheError: another process has taken over.
            OSError: the place has vanished.
        """
        ...

    def append(self, record: ShardRecord) -> None:
        """Name a stored shard in the journal: from then on it exists.

        Raises:
            CacheError: it holds too many examples, or another process has published it.
            OSError: the journal cannot be written; what stood there before stands there still.
        """
        ...


class Place(Protocol):
    """Where a cache is. Everything that reads or writes one does so in `folder`, and tells its place before and after."""

    @property
    def address(self) -> str:
        """As its user names it."""
        ...

    @property
    def recorded(self) -> str:
        """The address as it is understood from any folder; with `endpoint` it gives the place again."""
        ...

    @property
    def endpoint(self) -> str | None:
        """URL of the server of an object store, where one was named."""
        ...

    @property
    def folder(self) -> Path:
        """Where its files are on this machine: all of them, or copies of those that are in use."""
        ...

    @property
    def most_held(self) -> int | None:
        """Bytes of shards that lie in the folder at a time; None: all that there are."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether the folder holds copies."""
        ...

    def told(self) -> AbstractContextManager[None]:
        """Errors that are raised within name the place as its user does."""
        ...

    def refresh(self) -> None:
        """Look what is there: manifest, journal and attachments are in the folder from then on.

        Raises:
            CacheError: access is denied.
            OSError: it cannot be reached.
        """
        ...

    def entries(self) -> set[str]:
        """First parts of the names of all files of the place."""
        ...

    def names(self) -> Iterator[str]:
        """All files of the place, relative to it."""
        ...

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Refuse published files that are not there, or not of the size that they had.

        Raises:
            DamagedCacheError: names the first.
        """
        ...

    def hold(self, record: ShardRecord, *, anew: bool = False) -> Hold:
        """A shard's files are in the folder for as long as what this returns is held.

        Args:
            record: what the journal knows of the shard.
            anew: bring them even where copies are there.
        """
        ...

    def apart(self) -> AbstractContextManager[Place]:
        """The same place without any copies that were brought before."""
        ...

    def claim(self, shard: str) -> Hold:
        """A shard's files are this process's to write for as long as what this returns is held; `shard` is its name."""
        ...

    def alone(self) -> AbstractContextManager[Any]:
        """The right to write here, which one process has at a time; what others have published is known from then on.

        Raises:
            CacheError: another process has it.
        """
        ...

    def require_unlocked(self) -> None:
        """Find out early, before anything costly is done, that another process is writing.

        Raises:
            CacheError: it is.
        """
        ...

    def keep_beginning(self) -> None:
        """Make durable what a cache begins with; the manifest last, from which on it is a cache."""
        ...

    def keep_shard(self, record: ShardRecord) -> None:
        """Make a shard durable that has been stored in the folder; it is not published yet."""
        ...

    def keep(self, names: Sequence[str]) -> None:
        """Make files of the folder durable that are not of a shard."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that have been removed from the folder."""
        ...

    def publishing(self) -> AbstractContextManager[Publishing]:
        """Publish shards; within `alone`."""
        ...

    def settle(self) -> None:
        """All shards are published: put the journal in order."""
        ...


class Hold:
    """Keeps a shard's files in the folder, or to this process, until it is let go of, or nobody has it any longer."""

    __slots__ = ("fetched",)

    def __init__(self) -> None:
        """`fetched`: the files have just been brought, so nobody has looked at them yet."""
        self.fetched = False

    def let_go(self) -> None:
        """Others may do with the files what they like."""

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *ended: object) -> None:
        self.let_go()


_HELD = Hold()


class Folder:
    """A cache in a folder of this machine: all is where it belongs."""

    endpoint = None
    most_held = None
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

    def told(self) -> AbstractContextManager[None]:
        """As `Place.told`."""
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

    def hold(self, record: ShardRecord, *, anew: bool = False) -> Hold:
        """As `Place.hold`."""
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
        return JournalWriter(self.folder)

    def settle(self) -> None:
        """As `Place.settle`."""


Where = str | Path | Place


def place_of(where: Where, endpoint: str | None = None, copies: Path | None = None, copies_limit: int | None = None) -> Place:
    """The place of an address: a folder's path, or `s3://bucket/prefix`.

    Args:
        where: the address; a place is given back as it is.
        endpoint, copies, copies_limit: of an object store, see `cache.objects.place.ObjectStore`.

    Raises:
        CacheError: the address is of a kind that is not known.
    """
    if not isinstance(where, str | Path):
        return where
    if scheme := re.match(r"([a-z][a-z0-9+.-]+):(/|$)", str(where)):
        if scheme[1] == "s3" and isinstance(where, str):
            from cache.objects.place import ObjectStore  # obstore is loaded where it is needed

            return ObjectStore(where, endpoint, copies, copies_limit)
        raise CacheError(f"{where}: no kind of address that is known here; name a folder, or s3://bucket/prefix")
    return Folder(Path(where))

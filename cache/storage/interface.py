"""What a place of a cache can do, whether its files are all here or copies of what is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cache.shard.record import ShardRecord


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
    """Where a cache is. Everything that reads or writes one does so in `folder`, and tells its
    place before and after."""

    @property
    def address(self) -> str:
        """As its user names it."""
        ...

    @property
    def recorded(self) -> str:
        """The address as it is understood from any folder; with `endpoint` it gives the place
        again."""
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
    def held_bytes(self) -> int:
        """Bytes of copies that give way to others."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether the folder holds copies."""
        ...

    def naming_errors(self) -> AbstractContextManager[None]:
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

    def hold(
        self,
        record: ShardRecord,
        *,
        anew: bool = False,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Hold:
        """A shard's files are in the folder for as long as what this returns is held.

        Args:
            record: what the journal knows of the shard.
            anew: bring them even where copies are there.
            unwanted: asked now and then while they are brought, whether to give up.
        """
        ...

    def hold_named(self, shard: str) -> Hold:
        """As `hold`, brought anew, of a shard of which nothing but its name is known."""
        ...

    def apart(self) -> AbstractContextManager[Place]:
        """The same place without any copies that were brought before."""
        ...

    def claim(self, shard: str) -> Hold:
        """A shard's files are this process's to write for as long as what this returns is held;
        `shard` is its name."""
        ...

    def alone(self) -> AbstractContextManager[Any]:
        """The right to write here, which one process has at a time; what others have published is
        known from then on.

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
    """Keeps a shard's files in the folder, or to this process, until it is let go of, or nobody has
    it any longer."""

    __slots__ = ()

    def let_go(self) -> None:
        """Others may do with the files what they like."""

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *ended: object) -> None:
        self.let_go()


Where = str | Path | Place
"""A place, or its address."""

"""Storage locations, and sessions that read from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cache.shard.record import ShardRecord
    from cache.storage.write_session import WriteSession


class Pin:
    """Keeps a shard's files in the local folder until it is released or garbage-collected."""

    __slots__ = ()

    def release(self) -> None:
        """Allow the files to be removed or replaced."""

    def __enter__(self) -> Pin:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class ShardStorage(Protocol):
    """Stores shards that are not published yet."""

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """Store a shard durably; it does not exist until its record is published.

        Args:
            name: of its file or folder, relative to the cache.
            write: writes the shard durably into the local folder that it receives.

        Raises:
            CacheError: the right to write was lost.
            OSError: the shard cannot be written.
        """
        ...


class StorageLocation(ShardStorage, Protocol):
    """Where a cache is stored: a folder, or a prefix in an object store.

    `read` and `write` return the sessions that read and write. A process that computes shards for
    a writer in another process calls `store_shard`; the writer publishes the records.
    """

    @property
    def address(self) -> str:
        """The address that the user gave."""
        ...

    @property
    def recorded_address(self) -> str:
        """The address that, with `endpoint`, names the location from any working directory."""
        ...

    @property
    def endpoint(self) -> str | None:
        """URL of the object store's server, if one was given."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether `folder` has only local copies."""
        ...

    @property
    def folder(self) -> Path:
        """The local folder: the cache itself, or local copies of the files in use."""
        ...

    @property
    def copy_limit(self) -> int | None:
        """Limit of local copies of shards in bytes; None without copies."""
        ...

    @property
    def copy_bytes(self) -> int:
        """Size of local copies of shards in bytes."""
        ...

    def reporting_address(self) -> AbstractContextManager[None]:
        """Name the address instead of the local folder in errors raised inside the block."""
        ...

    def top_level_names(self) -> set[str]:
        """Return the names of the files and folders at the top level."""
        ...

    def file_names(self) -> Iterator[str]:
        """Return the names of all files, relative to the cache."""
        ...

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Compare the sizes of published files with their records.

        Raises:
            DamagedCacheError: a file is missing or has another size; names the first.
        """
        ...

    def require_unlocked(self) -> None:
        """Fail before costly work if another process is writing.

        Raises:
            CacheError: another process is writing.
        """
        ...

    def read(self) -> ReadSession:
        """Return a session that reads the current state.

        Raises:
            CacheError: access is denied.
            OSError: the location cannot be reached.
        """
        ...

    def read_uncached(self) -> AbstractContextManager[ReadSession]:
        """Return a session that ignores existing local copies."""
        ...

    def write(self) -> AbstractContextManager[WriteSession]:
        """Take the exclusive right to write for the duration of the block.

        Raises:
            CacheError: another process is writing.
        """
        ...


class ReadSession(Protocol):
    """Reads a cache. Manifest, journal and attachments are in `folder`, shards while pinned."""

    @property
    def location(self) -> StorageLocation:
        """The location that the session reads from."""
        ...

    @property
    def folder(self) -> Path:
        """The location's local folder."""
        ...

    def pin(
        self,
        record: ShardRecord,
        *,
        refetch: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Pin:
        """Make a shard's files available in `folder` until the pin is released.

        Args:
            record: the shard's record.
            refetch: download them even if there is a local copy.
            cancelled: polled during a download; True aborts it.

        Raises:
            DamagedCacheError: the shard is missing.
            OSError: it cannot be downloaded.
        """
        ...

    def pin_unrecorded(self, name: str) -> Pin:
        """Make a shard that the journal does not list available in `folder`.

        Raises:
            DamagedCacheError: the shard is missing.
            OSError: it cannot be downloaded.
        """
        ...

    def prefetch(self, records: Sequence[ShardRecord]) -> None:
        """Download shards in the background, in this order, replacing earlier requests."""
        ...

    def close(self) -> None:
        """Stop prefetching."""
        ...


LocationLike = str | Path | StorageLocation
"""A location, or its address."""

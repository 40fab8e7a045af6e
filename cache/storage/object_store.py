"""A cache in an object store, with local copies of the files in use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cache.errors import CacheError, DamagedCacheError
from cache.files import REPAIR
from cache.names import SHARDS
from cache.shard.record import ShardRecord
from cache.storage.bucket import Bucket
from cache.storage.conditional_put import PROBE, require_conditional_put
from cache.storage.journal_entries import ENTRIES
from cache.storage.lease import Lease, require_free
from cache.storage.local_copies import LocalCopies, folder_name
from cache.storage.object_store_files import LockedObjects, store_objects_of_shard
from cache.storage.object_store_index import download_index
from cache.storage.object_store_reading import ObjectStoreReadSession
from cache.storage.write_session import WriteSession

DEFAULT_COPIES_LIMIT = 20 * 10**9
_WRITING = ".writing"
_REFRESHING = ".refresh"


def default_copies_folder() -> Path:
    """Return the folder of local copies below the user's cache folder.

    Raises:
        CacheError: the user has no home folder.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise CacheError(
            "this user has no home folder for local copies of an object store; choose a folder with"
            " --copies"
        ) from error
    return base / "llm-modules" / "copies"


class ObjectStoreLocation:
    """A cache below `s3://bucket/prefix`.

    Its objects are the files of a cache in a folder, so copying all files converts one into the
    other. A shard is published by its journal entry, an object that is never replaced; when all
    shards are published, the entries are merged into the journal.
    """

    is_remote = True

    def __init__(
        self,
        address: str,
        endpoint: str | None = None,
        copies: Path | None = None,
        copies_limit: int | None = None,
    ) -> None:
        """Send no request yet.

        Args:
            address: `s3://bucket/prefix`.
            endpoint: URL of an S3-compatible server; None: from the environment, or AWS.
            copies: folder for local copies; None: below the user's cache folder.
            copies_limit: limit of local copies in bytes, including other caches in that folder;
                None: 20 GB.

        Raises:
            CacheError: the address is not a bucket with a prefix.
        """
        environment = os.environ
        self.endpoint = (
            endpoint
            or environment.get("AWS_ENDPOINT_URL_S3")
            or environment.get("AWS_ENDPOINT_URL")
        )
        self.address = address.rstrip("/")
        self._copies_root = (copies or default_copies_folder()).absolute()
        self._limit = DEFAULT_COPIES_LIMIT if copies_limit is None else copies_limit
        self._bucket = Bucket(self.address, self.endpoint)
        name = folder_name(self.address, self.endpoint)
        self._copies = LocalCopies(self._copies_root, name, self._limit)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address; another process opens its own connections."""
        return ObjectStoreLocation, (self.address, self.endpoint, self._copies_root, self._limit)

    def __str__(self) -> str:
        return self.address

    @property
    def recorded_address(self) -> str:
        """The address, which is absolute."""
        return self.address

    @property
    def folder(self) -> Path:
        """The folder of this cache's local copies."""
        return self._copies.folder

    @property
    def copy_limit(self) -> int:
        """See `StorageLocation.copy_limit`."""
        return self._limit

    @property
    def copy_bytes(self) -> int:
        """See `StorageLocation.copy_bytes`; includes copies of other caches."""
        return self._copies.total_bytes()

    @contextlib.contextmanager
    def reporting_address(self) -> Iterator[None]:
        """See `StorageLocation.reporting_address`."""
        try:
            yield
        except CacheError as error:
            text = str(error).replace(str(self.folder), self.address)
            if text == str(error):
                raise
            raise type(error)(text) from error

    def top_level_names(self) -> set[str]:
        """See `StorageLocation.top_level_names`; journal entries count as part of the journal."""
        return {
            name
            for name in self._bucket.top_level_names()
            if name != ENTRIES and not name.startswith(PROBE)
        }

    def file_names(self) -> Iterator[str]:
        """See `StorageLocation.file_names`; journal entries count as part of the journal."""
        return (
            name
            for name in sorted(self._bucket.sizes())
            if not name.startswith((f"{ENTRIES}/", PROBE))
        )

    def check_sizes(self, files: Mapping[str, tuple[int, str]]) -> None:
        """See `StorageLocation.check_sizes`."""
        if not files:
            return
        shards = {PurePosixPath(name).parts[:2] for name in files}
        below = "/".join(next(iter(shards))) if len(shards) == 1 else SHARDS
        stored = self._bucket.sizes(below)
        for name, (size, _) in files.items():
            if stored.get(name) != size:
                problem = (
                    f"{stored[name]} bytes where {size} were written"
                    if name in stored
                    else "missing"
                )
                raise DamagedCacheError(f"{self.address}/{name}: {problem}; {REPAIR}")

    def require_unlocked(self) -> None:
        """See `StorageLocation.require_unlocked`."""
        require_conditional_put(self._bucket)
        require_free(self._bucket)

    def store_shard(self, name: str, write: Callable[[Path], ShardRecord]) -> ShardRecord:
        """See `ShardStorage.store_shard`."""
        return store_objects_of_shard(self._bucket, self._copies, name, write)

    def read(self) -> ObjectStoreReadSession:
        """See `StorageLocation.read`. A writer on this machine keeps the local index up to date."""
        with self._copies.lock(_REFRESHING):
            if not self._copies.is_locked(_WRITING):
                download_index(self._bucket, self.folder)
        return self._session()

    @contextlib.contextmanager
    def read_uncached(self) -> Iterator[ObjectStoreReadSession]:
        """See `StorageLocation.read_uncached`; its local copies are removed on release."""
        with self._copies.private_root() as root:
            yield ObjectStoreLocation(self.address, self.endpoint, root, 0).read()

    @contextlib.contextmanager
    def write(self) -> Iterator[WriteSession]:
        """See `StorageLocation.write`; readers on this machine leave the local index alone."""
        with Lease(self._bucket) as lease, self._copies.lock(_WRITING):
            with self._copies.lock(_REFRESHING):
                download_index(self._bucket, self.folder)
            files = LockedObjects(self._bucket, self._copies, lease)
            yield WriteSession(files, self._session())

    def _session(self) -> ObjectStoreReadSession:
        return ObjectStoreReadSession(self, self._bucket, self._copies)

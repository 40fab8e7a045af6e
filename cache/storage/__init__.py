"""Storage locations: a local folder, or an object store with local copies of the files in use."""

from __future__ import annotations

import re
from pathlib import Path

from cache.errors import CacheError
from cache.storage.folder import FolderLocation
from cache.storage.interface import LocationLike, Pin, ReadSession, ShardStorage, StorageLocation

__all__ = [
    "FolderLocation",
    "LocationLike",
    "Pin",
    "ReadSession",
    "ShardStorage",
    "StorageLocation",
    "storage_location",
]


def storage_location(
    address: LocationLike,
    endpoint: str | None = None,
    copies: Path | None = None,
    copies_limit: int | None = None,
) -> StorageLocation:
    """Return the location at an address; return a location unchanged.

    Args:
        address: a folder's path, or `s3://bucket/prefix`.
        endpoint, copies, copies_limit: see `ObjectStoreLocation`.

    Raises:
        CacheError: the address is of an unknown kind, or malformed.
    """
    if not isinstance(address, str | Path):
        return address
    if re.match(r"[a-z][a-z0-9+.-]+:(/|$)", str(address)):
        if isinstance(address, str) and address.startswith("s3://"):
            from cache.storage.object_store import ObjectStoreLocation  # imports obstore

            return ObjectStoreLocation(address, endpoint, copies, copies_limit)
        raise CacheError(f"{address}: unknown kind of address; give a folder or s3://bucket/prefix")
    return FolderLocation(Path(address))

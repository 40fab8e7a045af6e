"""Where a cache is: a folder of this machine, or an object store with copies of what is in use
here."""

from __future__ import annotations

import re
from pathlib import Path

from cache.errors import CacheError
from cache.storage.folder import Folder
from cache.storage.interface import Hold, Place, Publishing, Where

__all__ = ["Folder", "Hold", "Place", "Publishing", "Where", "place_of"]


def place_of(
    where: Where,
    endpoint: str | None = None,
    copies: Path | None = None,
    copies_limit: int | None = None,
) -> Place:
    """The place of an address: a folder's path, or `s3://bucket/prefix`.

    Args:
        where: the address; a place is given back as it is.
        endpoint, copies, copies_limit: of an object store, see `ObjectStore`.

    Raises:
        CacheError: the address is of a kind that is not known.
    """
    if not isinstance(where, str | Path):
        return where
    if re.match(r"[a-z][a-z0-9+.-]+:(/|$)", str(where)):
        if isinstance(where, str) and where.startswith("s3://"):
            from cache.storage.object_store import ObjectStore  # brings the client of object stores

            return ObjectStore(where, endpoint, copies, copies_limit)
        raise CacheError(
            f"{where}: no kind of address that is known here; name a folder, or s3://bucket/prefix"
        )
    return Folder(Path(where))

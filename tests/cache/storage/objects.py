"""Objects of a cache in a store, and the files of one in a folder, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cache.storage.bucket import Bucket
from cache.storage.object_store import ObjectStoreLocation

Store = Callable[[], ObjectStoreLocation]


def objects_of(location: ObjectStoreLocation) -> dict[str, bytes | None]:
    bucket = Bucket(location.address, location.endpoint)
    return bucket.get_all(bucket.sizes())


def files_of(root: Path) -> dict[str, bytes]:
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and p.name != ".lock"
    }

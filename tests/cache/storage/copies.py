"""A cache to be read through local copies, for tests."""

from __future__ import annotations

from pathlib import Path

from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_shards

SHARDS = make_shards([[40, 3], [25, 9], [30], [18, 18], [44], [9, 9, 9]])


EXAMPLES = [example for shard in SHARDS for example in shard]


def with_copies(location: ObjectStoreLocation, folder: Path, limit: int) -> ObjectStoreLocation:
    return ObjectStoreLocation(location.address, location.endpoint, folder, limit)

"""Object stores for tests: one server per test process, a new address per cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache.containers import CONTAINER_NAMES
from cache.storage.object_store import ObjectStoreLocation
from tests.cache.examples import make_cache
from tests.cache.storage.copies import SHARDS
from tests.cache.storage.objects import Store
from tests.cache.storage.server import new_address


@pytest.fixture
def store(s3_endpoint: str, tmp_path: Path) -> Store:
    """Return a function that returns an unused location."""
    return lambda: ObjectStoreLocation(new_address(), s3_endpoint, tmp_path / "copies")


@pytest.fixture(scope="module", params=CONTAINER_NAMES)
def cached(
    request: pytest.FixtureRequest, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> ObjectStoreLocation:
    """Return the location of a read-only cache of `SHARDS`."""
    folder = tmp_path_factory.mktemp("written")
    return make_cache(
        ObjectStoreLocation(new_address(), s3_endpoint, folder), SHARDS, request.param
    )

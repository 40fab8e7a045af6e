"""Object stores for tests: a server for each test process, a new address for each cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cache.storage.object_store import ObjectStoreLocation
from tests.cache.storage.server import new_address


@pytest.fixture
def store(s3_endpoint: str, tmp_path: Path) -> Callable[[], ObjectStoreLocation]:
    """Makes locations in the store where nothing is yet."""
    return lambda: ObjectStoreLocation(new_address(), s3_endpoint, tmp_path / "copies")

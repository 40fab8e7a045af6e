"""Shard containers by name, behind one interface."""

from __future__ import annotations

from cache.containers.hdf5 import Hdf5Container
from cache.containers.interface import Arrays, Container, DecodedArray, StoredArray
from cache.containers.zarr3 import ZarrContainer
from cache.errors import CacheError
from cache.names import CONTAINER_NAMES

__all__ = [
    "CONTAINER_NAMES",
    "Arrays",
    "Container",
    "DecodedArray",
    "StoredArray",
    "container_named",
]

_CONTAINERS: dict[str, Container] = {
    container.name: container for container in (ZarrContainer(), Hdf5Container())
}


def container_named(name: str) -> Container:
    """Return a container by name.

    Raises:
        CacheError: no container has that name.
    """
    if name not in _CONTAINERS:
        raise CacheError(
            f"unknown cache format {name!r}; this release has {', '.join(CONTAINER_NAMES)}"
        )
    return _CONTAINERS[name]

"""Shard containers, by name: one interface, so that nothing above knows which one holds the
arrays."""

from __future__ import annotations

from cache.containers.hdf5 import Hdf5Container
from cache.containers.interface import Arrays, Container, Presented, StoredArray
from cache.containers.zarr3 import ZarrContainer
from cache.errors import CacheError
from cache.names import CONTAINER_NAMES

__all__ = ["CONTAINER_NAMES", "Arrays", "Presented", "Container", "StoredArray", "container_named"]

_FORMATS: dict[str, Container] = {
    container.name: container for container in (ZarrContainer(), Hdf5Container())
}


def container_named(name: str) -> Container:
    """Look a format up.

    Raises:
        CacheError: no format of that name is known.
    """
    if name not in _FORMATS:
        raise CacheError(
            f"unknown cache format {name!r}; this release knows {', '.join(CONTAINER_NAMES)}"
        )
    return _FORMATS[name]

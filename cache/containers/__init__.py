"""Shard containers, by name: one interface, so that nothing above knows which one holds the
arrays."""

from __future__ import annotations

from cache.containers.hdf5 import Hdf5Format
from cache.containers.interface import Arrays, Presented, ShardFormat, StoredArray
from cache.containers.zarr3 import ZarrFormat
from cache.errors import CacheError
from cache.names import FORMAT_NAMES

__all__ = ["FORMAT_NAMES", "Arrays", "Presented", "ShardFormat", "StoredArray", "format_named"]

_FORMATS: dict[str, ShardFormat] = {
    container.name: container for container in (ZarrFormat(), Hdf5Format())
}


def format_named(name: str) -> ShardFormat:
    """Look a format up.

    Raises:
        CacheError: no format of that name is known.
    """
    if name not in _FORMATS:
        raise CacheError(
            f"unknown cache format {name!r}; this release knows {', '.join(FORMAT_NAMES)}"
        )
    return _FORMATS[name]

"""A cache of teacher activations on disk: arrays and files, with no model library in sight."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.errors import CacheError, DamagedCacheError
    from cache.example import Example
    from cache.manifest import Manifest
    from cache.reader import Cache, open_cache
    from cache.totals import content_digest_of
    from cache.writer import CacheWriter, write_cache

__all__ = [
    "Cache",
    "CacheError",
    "CacheWriter",
    "DamagedCacheError",
    "Example",
    "Manifest",
    "content_digest_of",
    "open_cache",
    "write_cache",
]

_MODULES = {
    "Cache": "reader",
    "CacheError": "errors",
    "CacheWriter": "writer",
    "DamagedCacheError": "errors",
    "Example": "example",
    "Manifest": "manifest",
    "content_digest_of": "totals",
    "open_cache": "reader",
    "write_cache": "writer",
}


def __getattr__(name: str) -> Any:
    """Import what is named, and with it Zarr and HDF5, only when it is used: errors, names and
    places are known before."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return found

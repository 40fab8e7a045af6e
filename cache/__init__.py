"""A cache of hidden states on disk: arrays and files, without model libraries."""

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
    """Import a public name when it is used, and Zarr and HDF5 no earlier."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value

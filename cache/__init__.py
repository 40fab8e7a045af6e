"""A cache of teacher activations on disk: arrays and files, with no model library in sight."""

from cache.errors import CacheError, DamagedCacheError
from cache.example import Example
from cache.manifest import Manifest
from cache.store import Cache, open_cache
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

"""Checks of a location before a cache is written; no slow imports."""

from __future__ import annotations

from pathlib import PurePosixPath

from cache.errors import CacheError
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS
from cache.storage import StorageLocation

_ALLOWED_NAMES = {".lock", MANIFEST_NAME, JOURNAL_NAME, f"{JOURNAL_NAME}.partial"}
_NAMES_OF_A_BEGUN_CACHE = _ALLOWED_NAMES | {ATTACHMENTS, SHARDS, f"{MANIFEST_NAME}.partial"}


def require_cache_location(location: StorageLocation) -> bool:
    """Check that a location has no other files than a cache's; return whether a cache was begun.

    Raises:
        CacheError: its path is a file, or it has other files.
    """
    root = location.read().folder
    for path in (root, *root.parents):
        if path.exists() and not path.is_dir():
            raise CacheError(f"{path}: is a file; a cache is a folder")
    begun = (root / JOURNAL_NAME).exists() or (root / MANIFEST_NAME).exists()
    names = _NAMES_OF_A_BEGUN_CACHE if begun else _ALLOWED_NAMES
    if others := location.top_level_names() - names:
        raise CacheError(
            f"{location.address}: not a cache (it contains {min(others)!r}); choose a new location"
            " for the cache"
        )
    return begun


def require_separate(source: StorageLocation, target: StorageLocation) -> None:
    """Check that a cache may be converted into a target location.

    Raises:
        CacheError: source and target overlap, or the target has other files.
    """
    paths = [PurePosixPath(location.recorded_address) for location in (source, target)]
    if any(path.is_relative_to(other) for path, other in (paths, reversed(paths))):
        raise CacheError(
            f"{target.address}: a cache cannot be converted into its own folder; choose a new"
            " folder outside it"
        )
    require_cache_location(target)

"""Whether a cache may stand in a place: looked at before anything slow is done."""

from __future__ import annotations

from pathlib import PurePosixPath

from cache.errors import CacheError
from cache.names import ATTACHMENTS, JOURNAL_NAME, MANIFEST_NAME, SHARDS
from cache.storage import Place, Where, place_of

_OWN_NAMES = {".lock", MANIFEST_NAME, JOURNAL_NAME, f"{JOURNAL_NAME}.partial"}
_NAMES_OF_A_BEGUN_CACHE = _OWN_NAMES | {ATTACHMENTS, SHARDS, f"{MANIFEST_NAME}.partial"}


def require_cache_place(where: Where) -> bool:
    """Check that a cache may stand in a place, whatever it holds; whether one has been begun there.

    Raises:
        CacheError: the folder is none, or the place holds something else.
    """
    place = place_of(where)
    place.refresh()
    root = place.folder
    for path in (root, *root.parents):
        if path.exists() and not path.is_dir():
            raise CacheError(f"{path}: is a file; a cache is a folder")
    begun = (root / JOURNAL_NAME).exists() or (root / MANIFEST_NAME).exists()
    names = _NAMES_OF_A_BEGUN_CACHE if begun else _OWN_NAMES
    if strangers := place.entries() - names:
        raise CacheError(
            f"{place.address}: not a cache (it holds {min(strangers)!r}); choose a new place for"
            " the cache"
        )
    return begun


def require_apart(source: Place, target: Place) -> None:
    """Refuse a target that cannot be: the source's own place, or one where a cache cannot stand.

    Raises:
        CacheError: says which.
    """
    places = [PurePosixPath(place.recorded) for place in (source, target)]
    if any(place.is_relative_to(other) for place, other in (places, reversed(places))):
        raise CacheError(
            f"{target.address}: a cache cannot be converted into its own folder; name a new one"
            " beside it"
        )
    require_cache_place(target)

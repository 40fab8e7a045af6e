"""Everything that the cached numbers depend on, compared field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cache.errors import CacheError

Identity = dict[str, Any]


def differences(cached: Identity, wanted: Identity) -> list[str]:
    """One phrase for each field that differs, with both values."""
    return [
        f"{field}: the cache has {cached.get(field)!r}, this run asks for {wanted.get(field)!r}"
        for field in sorted(cached.keys() | wanted.keys())
        if cached.get(field) != wanted.get(field)
    ]


def require_same_identity(root: Path, cached: Identity, wanted: Identity) -> None:
    """Refuse to mix numbers of different origin.

    Raises:
        CacheError: at least one field differs; the text names each with both values.
    """
    if found := differences(cached, wanted):
        raise CacheError(
            f"{root}: holds another run's hidden states ({'; '.join(found)}); choose another --cache, or delete this one"
        )

"""Everything that the cached numbers depend on, compared field by field."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.sealed_json import canonical_json

Identity = dict[str, Any]


def identity_hash(identity: Identity, **layout: Any) -> str:
    """SHA-256 of an identity with what else a shard of the cache depends on: by it a shard knows
    its cache."""
    return hashlib.sha256(canonical_json({**identity, **layout})).hexdigest()


def differences(was: Identity, now: Identity) -> list[str]:
    """One phrase for each value that differs, with both; a value within a field is named after it:
    `codec -1 asked`.

    Which codecs there are follows from the layers, and how one was fitted from what was asked of
    it: either is told only where nothing that it follows from differs."""
    found = _differences(was, now, "")
    if any(name == "layers" for name, _ in found):
        found = [(name, phrase) for name, phrase in found if not name.startswith("codec")]
    return [phrase for name, phrase in found if not name.endswith(" fit")] or [
        phrase for _, phrase in found
    ]


def _differences(was: Identity, now: Identity, within: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for field in sorted(was.keys() | now.keys()):
        before, after, name = was.get(field), now.get(field), f"{within}{field}"
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{name} ")
        elif before != after:
            found.append((name, f"{name} was {before!r}, now it is {after!r}"))
    return found


def require_same_identity(
    where: str | Path,
    cached: Identity,
    wanted: Identity,
    mend: str = "choose another place for the cache, or delete this one",
) -> None:
    """Refuse to mix numbers of different origin. `mend` tells the user what to do about it.

    Raises:
        CacheError: at least one field differs; the text names each with both values.
    """
    if found := differences(cached, wanted):
        raise CacheError(f"{where}: holds another run's hidden states ({'; '.join(found)}); {mend}")

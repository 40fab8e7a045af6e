"""Everything that the cached numbers depend on, compared field by field."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cache.errors import CacheError
from cache.sealed_json import canonical_json

Identity = dict[str, Any]


def identity_hash(identity: Identity, **layout: Any) -> str:
    """Return the SHA-256 of an identity and layout, by which a shard names its cache."""
    return hashlib.sha256(canonical_json({**identity, **layout})).hexdigest()


def differences(was: Identity, now: Identity) -> list[str]:
    """Return one phrase per difference, with both values; nested fields as `codec -1 fidelity`.

    Codecs depend on the layers, and fits on the codec requirements; they are listed only if these
    are equal.
    """
    changed = _differences(was, now, "")
    if any(name == "layers" for name, _ in changed):
        changed = [(name, phrase) for name, phrase in changed if not name.startswith("codec")]
    causes = [phrase for name, phrase in changed if not name.endswith(" fit")]
    return causes or [phrase for _, phrase in changed]


def _differences(was: Identity, now: Identity, within: str) -> list[tuple[str, str]]:
    changed: list[tuple[str, str]] = []
    for field in sorted(was.keys() | now.keys()):
        before, after, name = was.get(field), now.get(field), f"{within}{field}"
        if isinstance(before, dict) and isinstance(after, dict):
            changed += _differences(before, after, f"{name} ")
        elif before != after:
            changed.append((name, f"{name} was {before!r}, now it is {after!r}"))
    return changed


def require_same_identity(
    where: str | Path,
    cached: Identity,
    wanted: Identity,
    remedy: str = "choose another location for the cache, or delete this one",
) -> None:
    """Refuse to mix numbers of different origin; `remedy` ends the message.

    Raises:
        CacheError: fields differ; names each with both values.
    """
    if phrases := differences(cached, wanted):
        raise CacheError(
            f"{where}: was extracted with other settings ({'; '.join(phrases)}); {remedy}"
        )

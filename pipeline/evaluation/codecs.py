"""What the codecs of the students' cache have lost, as it was found when they were fitted."""

from __future__ import annotations

from typing import Any

from cache import Cache
from cache.codecs import EXACT


def described_codecs(cache: Cache) -> list[dict[str, Any]]:
    """For each layer that is not stored exactly: what was asked, what was found, and the steps that
    were tried."""
    return [
        {
            "layer": layer,
            "codec": codec.name,
            "asked": codec.settings.get("asked", {}).get("asked", ""),
            "kl": None,
            **codec.settings.get("found", {}),
            "tried": codec.settings.get("tried", []),
        }
        for layer, codec in cache.codecs.items()
        if codec.name != EXACT
    ]

"""What `extract` caches, by the name of its `--condition`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CachedPart:
    """The part of each example that a cache holds.

    Attributes:
        name: of `extract --condition`, as in the identity of a cache.
        is_whole: whole examples with their loss mask; else what precedes the last answer.
        holds: of what such a cache holds the states, in error messages.
    """

    name: str
    is_whole: bool
    holds: str


WHOLE_EXAMPLES = CachedPart(name="sequence", is_whole=True, holds="whole examples")
PROMPTS = CachedPart(name="prompt", is_whole=False, holds="prompts alone")
CACHED_PARTS = {part.name: part for part in (WHOLE_EXAMPLES, PROMPTS)}


def cached_part_of(identity: Mapping[str, Any]) -> CachedPart:
    """Return what a cache of this identity holds."""
    return CACHED_PARTS.get(str(identity.get("condition")), WHOLE_EXAMPLES)

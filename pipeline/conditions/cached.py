"""The parts of examples that a cache may hold, by name of `extract --condition`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CachedPart:
    """The part of each example that a cache holds.

    Attributes:
        name: value of `extract --condition`, and in the identity of a cache.
        is_whole: whether it is the whole example, or the part before the last answer.
        holds: description of the part, in error messages.
    """

    name: str
    is_whole: bool
    holds: str


WHOLE_EXAMPLES = CachedPart(name="sequence", is_whole=True, holds="whole examples")
PROMPTS = CachedPart(name="prompt", is_whole=False, holds="prompts only")
CACHED_PARTS = {part.name: part for part in (WHOLE_EXAMPLES, PROMPTS)}


def cached_part_of(identity: Mapping[str, Any]) -> CachedPart:
    """Return the part that a cache with this identity holds."""
    return CACHED_PARTS.get(str(identity.get("condition")), WHOLE_EXAMPLES)

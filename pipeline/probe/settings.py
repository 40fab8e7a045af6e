"""The settings of a probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cache.storage import LocationLike
from pipeline.option import CACHE_LOCATION, Option


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """A probe; each field is the option of that name of `cache probe`.

    Attributes:
        cache: location of the cache.
    """

    cache: LocationLike
    test: Annotated[
        LocationLike | None,
        Option(
            "Score on the examples of this cache of the same teacher, not by cross-validation.",
            metavar=CACHE_LOCATION,
        ),
    ] = None
    layers: Annotated[tuple[int, ...] | None, Option("Layers to probe.", default="all")] = None
    examples: Annotated[
        int, Option("Use at most this many examples, chosen at random.", at_least=20)
    ] = 2000
    folds: Annotated[
        int,
        Option(
            "Folds of the cross-validation; each is scored by a model of the others.", at_least=2
        ),
    ] = 5
    seed: Annotated[int, Option("Seed of both choices.")] = 0

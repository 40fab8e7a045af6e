"""Training rows and held-out rows of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.data.groups import groups_of
from pipeline.data.split import split_rows
from pipeline.errors import InputError
from pipeline.runs.settings import TrainSettings

if TYPE_CHECKING:
    from cache import Cache


def rows_of(cache: Cache, settings: TrainSettings) -> tuple[list[int], list[int]]:
    """Return the indices of training and held-out examples; groups and copies stay together.

    Raises:
        InputError: the examples cannot be split.
    """
    try:
        return split_rows(
            cache.row_ids,
            validation=settings.validation,
            seed=settings.seed,
            groups=groups_of(cache),
        )
    except ValueError as error:
        raise InputError(
            f"{cache.address}: {error}; extract more rows, or change --validation"
        ) from error


def describe_groups(cache: Cache) -> str:
    """Return a sentence about rows that the split keeps together; empty if there are none."""
    groups = groups_of(cache)
    if not groups:
        return ""
    return (
        f"{len(groups)} of {len(cache)} rows are copies of others or share their group; each of the"
        f" {len({*groups.values()})} sets is kept on one side of the split"
    )

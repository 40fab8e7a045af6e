"""Which rows of a cache a run trains on, and which it holds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.data.groups import GROUPS, read_groups
from pipeline.data.split import split_rows
from pipeline.errors import InputError
from pipeline.runs.settings import TrainSettings

if TYPE_CHECKING:
    from cache import Cache


def rows_of(cache: Cache, settings: TrainSettings) -> tuple[list[int], list[int]]:
    """Indices of the examples to train on and to hold out; copies of a row, and rows of one group,
    are on the same side.

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


def groups_of(cache: Cache) -> dict[str, int]:
    """The group of each row that shares one with others, by row id; caches of older releases have
    none.

    Raises:
        InputError: the attachment holds something else.
    """
    return read_groups(cache.attachment(GROUPS)) if cache.has_attachment(GROUPS) else {}


def describe_groups(cache: Cache) -> str:
    """What to say of rows that are kept together; empty where every row stands alone."""
    groups = groups_of(cache)
    if not groups:
        return ""
    return (
        f"{len(groups)} of {len(cache)} rows are copies of others or share their group; each of the"
        f" {len({*groups.values()})} sets is kept on one side of the split"
    )

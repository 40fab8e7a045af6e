"""The split into training and validation examples."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

MIN_HELD_OUT = 10
"""With fewer held-out rows, evaluation reports no intervals and no verdict."""


def split_rows(
    row_ids: Sequence[str], *, validation: float, seed: int, groups: Mapping[str, int] | None = None
) -> tuple[list[int], list[int]]:
    """Return the indices of training and validation examples, each in order.

    The result depends only on the arguments. Each side has at least one example. A group is never
    divided, so the held-out share may differ from `validation` by up to one group.

    Args:
        row_ids: of the examples.
        validation: share to hold out.
        seed: of the random choice.
        groups: the group of each row that shares one, by row id.

    Raises:
        ValueError: fewer than two examples or groups, or `validation` is not between 0 and 1.
    """
    if len(row_ids) < 2:
        raise ValueError(f"{len(row_ids)} examples cannot be split; at least 2 are needed")
    if not 0 < validation < 1:
        raise ValueError(f"validation share {validation} is not between 0 and 1")
    count = min(max(round(len(row_ids) * validation), 1), len(row_ids) - 1)
    members = _members(row_ids, groups or {})
    if len(members) < 2:
        raise ValueError(
            "all examples share one group (equal content, or one --group-by value), so none can be"
            " held out"
        )
    held_out: set[int] = set()
    for group in random.Random(seed).sample(members, min(count, len(members) - 1)):
        if len(held_out) + len(group) <= count:
            held_out.update(group)
    if not held_out:  # every sampled group is larger than the share
        held_out.update(sorted(members, key=len)[0])
    return [i for i in range(len(row_ids)) if i not in held_out], sorted(held_out)


def _members(row_ids: Sequence[str], groups: Mapping[str, int]) -> list[list[int]]:
    """Return the indices of each group, in the order of their first rows."""
    members: dict[int | str, list[int]] = {}
    for index, row_id in enumerate(row_ids):
        members.setdefault(groups.get(row_id, row_id), []).append(index)
    return list(members.values())

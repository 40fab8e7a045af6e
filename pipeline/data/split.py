"""Which examples train and which validate."""

from __future__ import annotations

import random
from collections.abc import Sequence

FEWEST_HELD_OUT = 10
"""Of fewer rows no interval is given, and no verdict."""


def split_rows(row_ids: Sequence[str], *, validation: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and of the validation examples, each in order; a pure function of its arguments.

    At least one example is held out, and at least one is left to train on.

    Raises:
        ValueError: fewer than two examples, or `validation` is not between 0 and 1.
    """
    if len(row_ids) < 2:
        raise ValueError(f"{len(row_ids)} example(s) cannot be split; at least 2 are needed")
    if not 0 < validation < 1:
        raise ValueError(f"validation share {validation} is not between 0 and 1")
    count = min(max(round(len(row_ids) * validation), 1), len(row_ids) - 1)
    held_out = set(random.Random(seed).sample(range(len(row_ids)), count))
    return [i for i in range(len(row_ids)) if i not in held_out], sorted(held_out)

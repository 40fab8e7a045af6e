"""Rows of the teacher's LM head, for a cache that keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import TeacherSource


def lm_head_rows(source: TeacherSource, tokens: Sequence[int]) -> torch.Tensor:
    """Load the teacher and return the tokens' rows `[len(tokens), d_teacher]` of its LM head, bf16.

    Raises:
        InputError: the weights cannot be loaded, or the LM head is not a plain matrix product.
    """
    teacher = load_teacher(source, [-1], torch.device("cpu"), "bf16", with_lm_head=True)
    return teacher.lm_head_rows(tokens)

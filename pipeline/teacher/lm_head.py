"""The teacher's LM head, of which a cache may keep the rows of the tokens that occur in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import TeacherSource


def lm_head_rows(source: TeacherSource, tokens: Sequence[int]) -> torch.Tensor:
    """Rows `[len(tokens), d_teacher]` bfloat16 of the LM head; the teacher is loaded for them, and
    let go of again.

    Raises:
        InputError: the weights cannot be had, or there is no LM head that is a plain product.
    """
    teacher = load_teacher(source, [-1], torch.device("cpu"), "bf16", with_lm_head=True)
    return teacher.lm_head_rows(tokens)

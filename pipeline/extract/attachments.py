"""The small files stored with a cache: tokenizer, vocabulary, groups, codec fits."""

from __future__ import annotations

from pathlib import Path

import torch

from cache.codecs.fit_file import write_fits
from pipeline.data.groups import GROUPS, write_groups
from pipeline.data.vocabulary import VOCABULARY, write_vocabulary
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.teacher.lm_head import lm_head_rows


def kept_lm_head(plan: ExtractPlan) -> torch.Tensor | None:
    """Return the LM head's rows of the vocabulary, or None if the plan does not keep them.

    The teacher is loaded and released.

    Raises:
        InputError: the teacher has no such LM head.
    """
    return lm_head_rows(plan.source, plan.vocabulary) if plan.settings.keep_head else None


def write_attachments(fitted: FittedPlan, folder: Path, lm_head: torch.Tensor | None) -> None:
    """Write all attachments into a folder."""
    fitted.plan.tokenizer.save_pretrained(folder / "tokenizer")
    write_vocabulary(folder / VOCABULARY, fitted.plan.vocabulary, lm_head)
    write_groups(folder / GROUPS, fitted.plan.groups)
    write_fits(folder, fitted.codecs)

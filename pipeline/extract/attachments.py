"""The small files stored with a cache: tokenizer, vocabulary, groups, codec fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cache.codecs.fit_file import write_fits
from pipeline.data.groups import GROUPS, write_groups
from pipeline.data.vocabulary import VOCABULARY, special_tokens, write_vocabulary
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.teacher.lm_head import lm_head_rows


def kept_tokens(plan: ExtractPlan) -> list[int]:
    """Return the tokens that occur in the examples, and the special tokens, ascending."""
    occurring = np.unique(np.concatenate([example.input_ids for example in plan.dataset.examples]))
    special = {*special_tokens(plan.tokenizer), plan.manifest.end_token_id}
    # A tokenizer may have more tokens than the model.
    return sorted(
        token for token in special.union(occurring.tolist()) if token < plan.manifest.vocab_size
    )


def kept_lm_head(plan: ExtractPlan) -> torch.Tensor | None:
    """Return the LM head's rows of the kept tokens, or None if the plan does not keep them.

    The teacher is loaded and released.

    Raises:
        InputError: the teacher has no such LM head.
    """
    return lm_head_rows(plan.source, kept_tokens(plan)) if plan.settings.keep_head else None


def write_attachments(fitted: FittedPlan, folder: Path, lm_head: torch.Tensor | None) -> None:
    """Write all attachments into a folder."""
    fitted.plan.tokenizer.save_pretrained(folder / "tokenizer")
    write_vocabulary(folder / VOCABULARY, kept_tokens(fitted.plan), lm_head)
    write_groups(folder / GROUPS, fitted.plan.groups)
    write_fits(folder, fitted.codecs)

"""Learning what a teacher would have said, from its cached states and its LM head: no teacher is
needed for that either."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cache import Cache
from pipeline.data.vocabulary import VOCABULARY, read_lm_head, read_vocabulary
from pipeline.errors import InputError
from pipeline.model import LLMModulesForCausalLM, SoftTargets


def kept_head(cache: Cache, option: str) -> tuple[list[int], torch.Tensor]:
    """The tokens that occur in a cache, and the rows `[K, d_teacher]` that the teacher's LM head
    has for them.

    Args:
        cache: keeps them.
        option: what they are needed for.

    Raises:
        InputError: the cache keeps no LM head, or lacks the states that it reads.
    """
    if -1 not in cache.layers:
        raise InputError(
            f"{cache.address}: lacks layer -1, the LM head's; {option} needs extract --layers -1,…"
        )
    folder = cache.attachment(VOCABULARY)
    rows_KD = read_lm_head(folder)
    if rows_KD is None:
        raise InputError(
            f"{cache.address}: keeps no LM head for {option}; extract with --keep-head"
        )
    return read_vocabulary(folder), rows_KD


class TeachersPredictions(nn.Module):
    """Makes soft targets of a batch's teacher states (Hinton et al., arXiv 1503.02531, at
    temperature 1)."""

    head: torch.Tensor
    rows: torch.Tensor

    def __init__(self, model: LLMModulesForCausalLM, cache: Cache, share: float) -> None:
        """Hold the teacher's LM head, and where in the student's the same tokens are.

        Args:
            model: the student.
            cache: what it learns from.
            share: of the loss.

        Raises:
            InputError: as `kept_head`.
        """
        super().__init__()
        tokens, head_KD = kept_head(cache, "--distill")
        rows_K = torch.tensor(tokens)
        if model.head_tokens is not None:
            rows_K = torch.searchsorted(model.head_tokens, rows_K)
        self.share = share
        self.register_buffer("head", head_KD, persistent=False)
        self.register_buffer("rows", rows_K, persistent=False)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with `soft_targets` in place of its `target_states`."""
        states_BTD = batch["target_states"].to(self.head.dtype)
        soft = SoftTargets(states_BTD, self.head, self.rows, self.share)
        return {name: value for name, value in batch.items() if name != "target_states"} | {
            "soft_targets": soft
        }

"""Distillation from cached states and the kept LM head, without a teacher in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cache import Cache
from pipeline.data.vocabulary import kept_head
from pipeline.model import LLMModulesForCausalLM, SoftTargets


class TeachersPredictions(nn.Module):
    """Computes soft targets from teacher states (arXiv 1503.02531, at temperature 1)."""

    head: torch.Tensor
    rows: torch.Tensor

    def __init__(self, model: LLMModulesForCausalLM, cache: Cache, share: float) -> None:
        """Take the teacher's LM head, and the rows of the student's for the same tokens.

        Args:
            model: the student.
            cache: has the LM head.
            share: of the loss that distillation is.

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
        """Return the batch with `soft_targets` instead of `target_states`."""
        states_BTD = batch["target_states"].to(self.head.dtype)
        soft = SoftTargets(states_BTD, self.head, self.rows, self.share)
        return {name: value for name, value in batch.items() if name != "target_states"} | {
            "soft_targets": soft
        }

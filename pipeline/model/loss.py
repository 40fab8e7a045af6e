"""Cross-entropy over a large vocabulary without the logits of a whole batch in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, nll_loss

from pipeline.labels import IGNORE

_MAX_LOGITS = 1 << 26
"""Logits computed at a time."""


@dataclass(frozen=True)
class SoftTargets:
    """A teacher's predictions of the next token, for distillation (arXiv 1503.02531).

    Attributes:
        states: the teacher's last hidden states `[B, T, d_teacher]`.
        head: rows `[K, d_teacher]` of the teacher's LM head; its distribution is over their tokens.
        rows: the same tokens' rows `[K]` of the student's LM head.
        share: of the loss; the rest is the loss on the labels.
    """

    states: torch.Tensor
    head: torch.Tensor
    rows: torch.Tensor
    share: float


def next_token_loss(
    hidden_BTS: torch.Tensor,
    head_VS: torch.Tensor,
    labels_BT: torch.Tensor,
    soft: SoftTargets | None = None,
) -> tuple[torch.Tensor, int]:
    """Return the summed cross-entropy (nats) of labelled tokens, and their number.

    A token is predicted from the state before it. The LM head runs on chunks of those states only.

    Args:
        hidden_BTS: the student's last states.
        head_VS: the LM head's weights.
        labels_BT: token ids, `IGNORE` where there is no loss; not shifted.
        soft: a teacher's predictions, mixed into the targets.
    """
    targets_BT = labels_BT[:, 1:]
    carries_BT = targets_BT != IGNORE
    hidden_NS, targets_N = hidden_BTS[:, :-1][carries_BT], targets_BT[carries_BT]
    teacher: tuple[Any, ...] = (None, None, None, 0.0)
    if soft is not None:
        teacher = (soft.states[:, :-1][carries_BT], soft.head, soft.rows, soft.share)
    total: torch.Tensor = _SummedLoss.apply(hidden_NS, head_VS, targets_N, *teacher)
    return total, len(targets_N)


@torch.no_grad()
def token_losses(
    hidden_BTS: torch.Tensor, head_VS: torch.Tensor, labels_BT: torch.Tensor
) -> torch.Tensor:
    """Return the loss `[B, T]` (nats, float32) of each labelled token, 0 elsewhere."""
    losses_BT = torch.zeros(labels_BT.shape, device=hidden_BTS.device)
    rows_N, places_N = (labels_BT[:, 1:] != IGNORE).nonzero(as_tuple=True)
    for at in _chunks(len(rows_N), head_VS.shape[0]):
        row, place = rows_N[at], places_N[at]
        log_probabilities_CV = linear(hidden_BTS[row, place], head_VS).log_softmax(
            dim=-1, dtype=torch.float32
        )
        losses_BT[row, place + 1] = nll_loss(
            log_probabilities_CV, labels_BT[row, place + 1], reduction="none"
        )
    return losses_BT


class _SummedLoss(torch.autograd.Function):
    """Cross-entropy whose gradients are computed with the loss, chunk by chunk.

    No logits are kept. This takes three products with the LM head; recomputing the logits in the
    backward pass would take four.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NS: torch.Tensor,
        head_VS: torch.Tensor,
        targets_N: torch.Tensor,
        teacher_ND: torch.Tensor | None,
        teacher_head_KD: torch.Tensor | None,
        teacher_rows_K: torch.Tensor | None,
        teacher_share: float,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_NS.device)
        to_hidden, to_head = ctx.needs_input_grad[:2]
        hidden_gradient_NS = torch.empty_like(hidden_NS) if to_hidden else None
        head_gradient_VS = torch.zeros_like(head_VS) if to_head else None
        for at in _chunks(len(targets_N), head_VS.shape[0]):
            logits_CV = linear(hidden_NS[at], head_VS)
            log_probabilities_CV = logits_CV.log_softmax(dim=-1, dtype=torch.float32)
            total += (1 - teacher_share) * nll_loss(
                log_probabilities_CV, targets_N[at], reduction="sum"
            )
            soft_CK = None
            if (
                teacher_ND is not None
                and teacher_head_KD is not None
                and teacher_rows_K is not None
            ):
                soft_CK = (
                    linear(teacher_ND[at], teacher_head_KD).softmax(dim=-1, dtype=torch.float32)
                    * teacher_share
                )
                total -= (soft_CK * log_probabilities_CV[:, teacher_rows_K]).sum()
            if hidden_gradient_NS is None and head_gradient_VS is None:
                continue
            slope_CV = log_probabilities_CV.exp_()
            slope_CV[torch.arange(len(slope_CV), device=slope_CV.device), targets_N[at]] -= (
                1 - teacher_share
            )
            if soft_CK is not None and teacher_rows_K is not None:
                slope_CV.index_add_(1, teacher_rows_K, soft_CK, alpha=-1)
            slope_CV = slope_CV.to(logits_CV.dtype)
            if hidden_gradient_NS is not None:
                hidden_gradient_NS[at] = slope_CV @ head_VS
            if head_gradient_VS is not None:
                if slope_CV.dtype == hidden_NS.dtype == head_VS.dtype:
                    head_gradient_VS.addmm_(slope_CV.T, hidden_NS[at])
                else:  # automatic mixed precision: `@` uses the lower one, as elsewhere
                    head_gradient_VS += slope_CV.T @ hidden_NS[at]
        ctx.save_for_backward(hidden_gradient_NS, head_gradient_VS)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient_NS, head_gradient_VS = ctx.saved_tensors
        scaled = (
            None if gradient is None else gradient * gradients[0]
            for gradient in (hidden_gradient_NS, head_gradient_VS)
        )
        return (*scaled, None, None, None, None, None)


def _chunks(count: int, vocabulary: int) -> Iterator[slice]:
    rows = max(1, _MAX_LOGITS // vocabulary)
    return (slice(start, start + rows) for start in range(0, count, rows))

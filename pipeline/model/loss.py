"""Cross-entropy over a large vocabulary without the logits of a whole batch in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, nll_loss

from pipeline.labels import IGNORE

_LOGITS_AT_ONCE = 1 << 26


def next_token_loss(hidden_BTS: torch.Tensor, head_VS: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) of predicting each labelled token from the state before it, and how many those are.

    Only positions that carry loss reach the head, some at a time.

    Args:
        hidden_BTS: the student's last states.
        head_VS: the LM head's weights.
        labels_BT: token ids, `IGNORE` where there is no loss; not shifted.
    """
    targets_BT = labels_BT[:, 1:]
    carries_BT = targets_BT != IGNORE
    hidden_NS, targets_N = hidden_BTS[:, :-1][carries_BT], targets_BT[carries_BT]
    total: torch.Tensor = _SummedLoss.apply(hidden_NS, head_VS, targets_N)
    return total, len(targets_N)


class _SummedLoss(torch.autograd.Function):
    """The gradients are computed with the loss, chunk by chunk: logits are needed once, and are never kept for later.

    That is three products of the head's size; keeping no logits and computing them anew on the way back takes four.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NS: torch.Tensor, head_VS: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_NS.device)
        to_hidden, to_head = ctx.needs_input_grad[:2]
        hidden_gradient_NS = torch.empty_like(hidden_NS) if to_hidden else None
        head_gradient_VS = torch.zeros_like(head_VS) if to_head else None
        for at in _chunks(len(targets_N), head_VS.shape[0]):
            logits_CV = linear(hidden_NS[at], head_VS)
            log_probabilities_CV = logits_CV.log_softmax(dim=-1, dtype=torch.float32)
            total += nll_loss(log_probabilities_CV, targets_N[at], reduction="sum")
            if hidden_gradient_NS is None and head_gradient_VS is None:
                continue
            slope_CV = log_probabilities_CV.exp_()
            slope_CV[torch.arange(len(slope_CV), device=slope_CV.device), targets_N[at]] -= 1
            slope_CV = slope_CV.to(logits_CV.dtype)
            if hidden_gradient_NS is not None:
                hidden_gradient_NS[at] = slope_CV @ head_VS
            if head_gradient_VS is not None:
                if slope_CV.dtype == hidden_NS.dtype == head_VS.dtype:
                    head_gradient_VS.addmm_(slope_CV.T, hidden_NS[at])
                else:  # automatic mixed precision: the product is made in the lower one, as it is elsewhere
                    head_gradient_VS += slope_CV.T @ hidden_NS[at]
        ctx.save_for_backward(hidden_gradient_NS, head_gradient_VS)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_gradient_NS, head_gradient_VS = ctx.saved_tensors
        scaled = (None if gradient is None else gradient * given[0] for gradient in (hidden_gradient_NS, head_gradient_VS))
        return (*scaled, None)


def _chunks(count: int, vocabulary: int) -> Iterator[slice]:
    rows = max(1, _LOGITS_AT_ONCE // vocabulary)
    return (slice(start, start + rows) for start in range(0, count, rows))

"""Cross-entropy over a large vocabulary without the logits of a whole batch in memory."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from pipeline.labels import IGNORE

_LOGITS_AT_ONCE = 1 << 26


def next_token_loss(hidden_BTS: torch.Tensor, head_VS: torch.Tensor, labels_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) of predicting each labelled token from the state before it, and how many those are.

    Only positions that carry loss reach the head, in chunks whose logits are computed anew in the backward pass.

    Args:
        hidden_BTS: the student's last states.
        head_VS: the LM head's weights.
        labels_BT: token ids, `IGNORE` where there is no loss; not shifted.
    """
    targets_BT = labels_BT[:, 1:]
    carries_BT = targets_BT != IGNORE
    hidden_NS, targets_N = hidden_BTS[:, :-1][carries_BT], targets_BT[carries_BT]
    rows = max(1, _LOGITS_AT_ONCE // head_VS.shape[0])
    total = hidden_BTS.new_zeros((), dtype=torch.float32)
    for chunk_NS, chunk_N in zip(hidden_NS.split(rows), targets_N.split(rows), strict=True):
        total = total + checkpoint(_summed_cross_entropy, chunk_NS, head_VS, chunk_N, use_reentrant=False)
    return total, len(targets_N)


def _summed_cross_entropy(hidden_NS: torch.Tensor, head_VS: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return cross_entropy(linear(hidden_NS, head_VS).float(), targets_N, reduction="sum")

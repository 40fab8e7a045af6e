"""Embeddings and LM heads that span some tokens of a vocabulary: rows by token."""

from __future__ import annotations

import torch


def rows_of_tokens(tokens_V: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Return the index of each id in ascending `tokens_V`; one past the last if it has none."""
    rows_BT = torch.searchsorted(tokens_V, ids_BT).clamp(max=len(tokens_V) - 1)
    return rows_BT.where(tokens_V[rows_BT] == ids_BT, len(tokens_V))


def spread_over(logits_BTH: torch.Tensor, tokens_H: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Return the logits of some tokens as `[B, T, vocab_size]`, -inf for all others."""
    logits_BTV = logits_BTH.new_full((*logits_BTH.shape[:-1], vocab_size), -torch.inf)
    logits_BTV[..., tokens_H] = logits_BTH
    return logits_BTV

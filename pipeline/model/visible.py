"""Attention masks: the tokens that each token may see."""

from __future__ import annotations

import torch


def needs_no_mask(attention_mask_BK: torch.Tensor, tokens: int) -> bool:
    """Return whether plain causal attention hides all padding from tokens.

    It does if examples are padded on the right, as in training. Kernels without a mask are faster.

    Args:
        attention_mask_BK: 1 for tokens, 0 for padding, over all tokens so far.
        tokens: number of tokens read now, the last ones.
    """
    if tokens == attention_mask_BK.shape[1]:
        return bool((attention_mask_BK[:, 1:] <= attention_mask_BK[:, :-1]).all())
    return tokens == 1 and bool(attention_mask_BK.all())


def visible_tokens(
    attention_mask_BK: torch.Tensor | None, tokens: int, *, causal: bool, device: torch.device
) -> torch.Tensor | None:
    """Return the teacher states that each of the last `tokens` tokens may see.

    A token always sees its own state, so that padding tokens, whose output is not used, do not
    divide by zero.

    Returns:
        `[B, 1, T, K]` or `[1, 1, T, K]` bool; None for plain causal attention, if it
        `needs_no_mask`.
    """
    if attention_mask_BK is None:
        return None if causal else torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=device)
    if causal and needs_no_mask(attention_mask_BK, tokens):
        return None
    keys = attention_mask_BK.shape[1]
    key_K = torch.arange(keys, device=device)
    query_T = key_K[keys - tokens :, None]
    allowed_B1TK = attention_mask_BK.bool()[:, None, None, :].expand(-1, 1, tokens, keys)
    if causal:
        allowed_B1TK = allowed_B1TK & (key_K <= query_T)
    return allowed_B1TK | (key_K == query_T)

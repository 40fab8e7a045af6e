"""Which tokens each token may see."""

from __future__ import annotations

import torch


def needs_no_mask(attention_mask_BK: torch.Tensor, tokens: int) -> bool:
    """Whether in plain causal attention no token, but padding, sees any padding.

    So it is where examples are padded at their ends, as in training: the kernels without a mask are
        the faster ones.

    Args:
        attention_mask_BK: 1 for tokens, 0 for padding, over all tokens so far.
        tokens: how many of them, the last ones, are read now.
    """
    if tokens == attention_mask_BK.shape[1]:
        return bool((attention_mask_BK[:, 1:] <= attention_mask_BK[:, :-1]).all())
    return tokens == 1 and bool(attention_mask_BK.all())


def visible_tokens(
    attention_mask_BK: torch.Tensor | None, tokens: int, *, causal: bool, device: torch.device
) -> torch.Tensor | None:
    """Which teacher states each of the last `tokens` tokens may see, `[B, 1, T, K]` or `[1, 1, T,
    K]` bool.

    None stands for plain causal attention, where that `needs_no_mask`. A token always sees its own
    state, so that padding tokens, whose output nobody reads, do not divide by zero."""
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

"""GPT-Neo's self-attention through PyTorch's fused kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import Cache, GPTNeoConfig


class FusedSelfAttention(nn.Module):
    """GPT-Neo's self-attention, with the same names of weights and no mask buffer.

    transformers only has eager attention, with a mask buffer in each layer. GPT-Neo does not divide
    by the square root of the width. In a `local` layer a token sees the last `window_size` tokens,
    including itself.
    """

    def __init__(self, config: GPTNeoConfig, attention_type: str, layer_id: int) -> None:
        """Build the layer; `layer_id` is its index in the key-value cache.

        Raises:
            ValueError: the heads do not divide the width, or the type of attention is unknown.
        """
        super().__init__()
        size = config.hidden_size
        if attention_type not in ("global", "local"):
            raise ValueError(f"attention type {attention_type!r} is neither global nor local")
        if size % config.num_heads:
            raise ValueError(f"{config.num_heads} heads do not divide GPT-Neo's width {size}")
        self.heads, self.layer_id = config.num_heads, layer_id
        self.window: int | None = config.window_size if attention_type == "local" else None
        self.dropout = float(config.attention_dropout)
        self.resid_dropout = nn.Dropout(float(config.resid_dropout))
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.q_proj = nn.Linear(size, size, bias=False)
        self.out_proj = nn.Linear(size, size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        layer_past: Cache | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return new states `[B, T, d]`, and None for the attention weights.

        Args:
            hidden_states: `[B, T, d]`.
            attention_mask: `[B, 1, T, K]`, causal and without padding (local layers only read its
                last row, so no other mask is possible); None: causal.
            layer_past: key-value cache of the preceding tokens; extended in place.
        """
        query_BHTC, key_BHKC, value_BHKC = (
            project(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if layer_past is not None:
            key_BHKC, value_BHKC = layer_past.update(key_BHKC, value_BHKC, self.layer_id)
        attended_BHTC = self._attend(query_BHTC, key_BHKC, value_BHKC, attention_mask)
        attended_BTS: torch.Tensor = self.out_proj(attended_BHTC.transpose(1, 2).flatten(-2))
        return self.resid_dropout(attended_BTS), None

    def _attend(
        self,
        query_BHTC: torch.Tensor,
        key_BHKC: torch.Tensor,
        value_BHKC: torch.Tensor,
        visible_B1TK: torch.Tensor | None,
    ) -> torch.Tensor:
        tokens, keys, window = query_BHTC.shape[-2], key_BHKC.shape[-2], self.window
        if window is None or keys <= window:
            return self._fused(query_BHTC, key_BHKC, value_BHKC, visible_B1TK)
        if tokens > window:
            return self._in_blocks(query_BHTC, key_BHKC, value_BHKC, visible_B1TK, window)
        first = max(0, keys - tokens - window + 1)
        seen = _near(keys - tokens, keys, first, window, query_BHTC.device)
        if visible_B1TK is not None:
            seen = seen & visible_B1TK[..., first:]
        return self._fused(query_BHTC, key_BHKC[..., first:, :], value_BHKC[..., first:, :], seen)

    def _in_blocks(
        self,
        query_BHTC: torch.Tensor,
        key_BHKC: torch.Tensor,
        value_BHKC: torch.Tensor,
        visible_B1TK: torch.Tensor | None,
        window: int,
    ) -> torch.Tensor:
        """Attend in blocks of `window` tokens, as one batch; the cost is linear in the length.

        Each block sees itself and the block before it.
        """
        tokens, keys = query_BHTC.shape[-2], key_BHKC.shape[-2]
        blocks = -(-tokens // window)
        after = blocks * window - tokens
        before = window - (keys - tokens)  # below 0: no token sees that far back
        there_BK = key_BHKC.new_ones(len(key_BHKC), keys, dtype=torch.bool)
        if visible_B1TK is not None:
            there_BK = there_BK & visible_B1TK[:, 0, -1]  # the last token sees all but padding
        there_BNL = pad(there_BK, (before, after)).unfold(-1, 2 * window, window)
        near_WL = _near(window, 2 * window, 0, window, query_BHTC.device)
        seen_P1WL = (there_BNL[:, :, None] & near_WL).flatten(0, 1).unsqueeze(1)
        query_PHWC = _as_batch(pad(query_BHTC, (0, 0, 0, after)).unflatten(-2, (blocks, window)))
        key_PHLC, value_PHLC = (
            _as_batch(
                pad(rows, (0, 0, before, after)).unfold(-2, 2 * window, window).transpose(-1, -2)
            )
            for rows in (key_BHKC, value_BHKC)
        )
        attended_PHWC = self._fused(query_PHWC, key_PHLC, value_PHLC, seen_P1WL)
        attended_BHTC: torch.Tensor = (
            attended_PHWC.unflatten(0, (-1, blocks)).transpose(1, 2).flatten(2, 3)
        )
        return attended_BHTC[..., :tokens, :]

    def _fused(
        self,
        query_BHTC: torch.Tensor,
        key_BHKC: torch.Tensor,
        value_BHKC: torch.Tensor,
        visible: torch.Tensor | None,
    ) -> torch.Tensor:
        return scaled_dot_product_attention(
            query_BHTC,
            key_BHKC,
            value_BHKC,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=visible is None and query_BHTC.shape[-2] > 1,
            scale=1.0,
        )


def _near(start: int, end: int, first: int, window: int, device: torch.device) -> torch.Tensor:
    """Return whether each of tokens `start … end` has each of `first … end` in its window."""
    back_TK = torch.arange(start, end, device=device)[:, None] - torch.arange(
        first, end, device=device
    )
    return (back_TK >= 0) & (back_TK < window)


def _as_batch(blocks_BHNLC: torch.Tensor) -> torch.Tensor:
    """Return blocks of tokens as separate examples, `[B * N, H, L, C]`."""
    return blocks_BHNLC.transpose(1, 2).flatten(0, 1)

"""GPT-Neo's body with fused attention: in transformers it has eager attention alone, and keeps a
mask for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import Cache, GPTNeoConfig, GPTNeoModel
from transformers.masking_utils import create_causal_mask
from transformers.models.gpt_neo.modeling_gpt_neo import GPT_NEO_ATTENTION_CLASSES

from pipeline.model.visible import needs_no_mask


class FusedSelfAttention(nn.Module):
    """GPT-Neo's self-attention, its weights named alike, through PyTorch's fused kernels; no mask
    is kept.

    GPT-Neo does not divide by the square root of the width. In a `local` layer a token sees the
    `window_size` tokens up to itself."""

    def __init__(self, config: GPTNeoConfig, attention_type: str, layer_id: int) -> None:
        """Build the layer; `layer_id` is its place in the key-value cache.

        Raises:
            ValueError: the heads do not divide the width.
        """
        super().__init__()
        size = config.hidden_size
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
        """New states `[B, T, d]`, and None for the weights, which are never made.

        Args:
            hidden_states: `[B, T, d]`.
            attention_mask: `[B, 1, T, K]`, True for the tokens up to each that are no padding
                (local layers read its last row alone, so it is no place for any other mask); None:
                all tokens up to each.
            layer_past: key-value cache of the tokens before these; extended in place.
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
        """Local attention of many tokens: each block of a window's length sees itself and the block
        before, all side by side.

        So its cost follows the length and not its square, and a GPU has as much to do at once as
        ever."""
        tokens, keys = query_BHTC.shape[-2], key_BHKC.shape[-2]
        blocks = -(-tokens // window)
        after = blocks * window - tokens
        before = window - (keys - tokens)  # below 0: what lies farther back is seen by none
        there_BK = key_BHKC.new_ones(len(key_BHKC), keys, dtype=torch.bool)
        if visible_B1TK is not None:
            there_BK = (
                there_BK & visible_B1TK[:, 0, -1]
            )  # what the last token sees is all that is no padding
        there_BNL = pad(there_BK, (before, after)).unfold(-1, 2 * window, window)
        near_WL = _near(window, 2 * window, 0, window, query_BHTC.device)
        seen_P1WL = (there_BNL[:, :, None] & near_WL).flatten(0, 1).unsqueeze(1)
        query_PHWC = _as_batch(pad(query_BHTC, (0, 0, 0, after)).unflatten(-2, (blocks, window)))
        key_PHLC, value_PHLC = (
            _as_batch(
                pad(each, (0, 0, before, after)).unfold(-2, 2 * window, window).transpose(-1, -2)
            )
            for each in (key_BHKC, value_BHKC)
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


class GPTNeoBody(GPTNeoModel):
    """GPT-Neo with `FusedSelfAttention`, and room for something before each of its blocks."""

    _supports_sdpa = True

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        before_blocks: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType({}),
    ) -> torch.Tensor:
        """The last states `[B, T, d]`.

        Args:
            input_ids: `[B, T]`; or
            inputs_embeds: `[B, T, d]`.
            attention_mask: `[B, K]`, 1 for tokens, 0 for padding, over all tokens so far.
            position_ids: `[B, T]`; None: counted from the first token.
            past_key_values: key-value cache of the tokens before these; extended in place.
            before_blocks: what is done to the states before a block, by its number.
        """
        states_BTS = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(seen, seen + states_BTS.shape[1], device=states_BTS.device)[
                None
            ]
        mask_B1TK = None
        if attention_mask is None or not needs_no_mask(attention_mask, states_BTS.shape[1]):
            mask_B1TK = create_causal_mask(
                config=self.config,
                inputs_embeds=states_BTS,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
        states_BTS = self.drop(states_BTS + self.wpe(position_ids))
        for number, block in enumerate(self.h):
            if number in before_blocks:
                states_BTS = before_blocks[number](states_BTS)
            states_BTS = block(states_BTS, layer_past=past_key_values, attention_mask=mask_B1TK)[0]
        last_BTS: torch.Tensor = self.ln_f(states_BTS)
        return last_BTS


def _near(start: int, end: int, first: int, window: int, device: torch.device) -> torch.Tensor:
    """True where token `start … end` sees token `first … end`: itself and the ones before it in its
    window."""
    back_TK = torch.arange(start, end, device=device)[:, None] - torch.arange(
        first, end, device=device
    )
    return (back_TK >= 0) & (back_TK < window)


def _as_batch(blocks_BHNLC: torch.Tensor) -> torch.Tensor:
    """Blocks of tokens as if each were an example of its own, `[B * N, H, L, C]`."""
    return blocks_BHNLC.transpose(1, 2).flatten(0, 1)


GPT_NEO_ATTENTION_CLASSES["sdpa"] = FusedSelfAttention  # type: ignore[assignment]  # weights and call are the same

"""GPT-Neo's body with fused attention, and with functions before its blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import Cache, GPTNeoConfig, GPTNeoModel
from transformers.masking_utils import create_causal_mask
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoBlock, GPTNeoMLP

from pipeline.model.self_attention import FusedSelfAttention
from pipeline.model.visible import needs_no_mask


class _Attention(nn.Module):
    """The module that GPT-Neo's attention weights are named after."""

    def __init__(self, config: GPTNeoConfig, layer_id: int) -> None:
        super().__init__()
        self.attention = FusedSelfAttention(config, config.attention_layers[layer_id], layer_id)

    def forward(self, hidden_states: torch.Tensor, **named: Any) -> tuple[torch.Tensor, None]:
        attended: tuple[torch.Tensor, None] = self.attention(hidden_states, **named)
        return attended


class FusedBlock(GPTNeoBlock):
    """GPT-Neo's block with `FusedSelfAttention`."""

    def __init__(self, config: GPTNeoConfig, layer_id: int) -> None:
        # not GPTNeoBlock's: its eager attention has a mask of max_position_embeddings squared
        super(GPTNeoBlock, self).__init__()
        size = config.hidden_size
        inner_size = 4 * size if config.intermediate_size is None else config.intermediate_size
        self.ln_1 = nn.LayerNorm(size, eps=config.layer_norm_epsilon)
        self.attn = _Attention(config, layer_id)  # type: ignore[assignment]  # same signature
        self.ln_2 = nn.LayerNorm(size, eps=config.layer_norm_epsilon)
        self.mlp = GPTNeoMLP(inner_size, config)


class GPTNeoBody(GPTNeoModel):
    """GPT-Neo with fused attention, and with functions before its blocks."""

    _supports_sdpa = True
    _no_split_modules = ["FusedBlock"]

    def __init__(self, config: GPTNeoConfig) -> None:
        super(GPTNeoModel, self).__init__(config)  # GPTNeoModel's builds eager blocks
        size = config.hidden_size
        self.embed_dim = size
        self.wte = nn.Embedding(config.vocab_size, size)
        self.wpe = nn.Embedding(config.max_position_embeddings, size)
        self.drop = nn.Dropout(float(config.embed_dropout))
        self.h = nn.ModuleList(FusedBlock(config, layer) for layer in range(config.num_layers))
        self.ln_f = nn.LayerNorm(size, eps=config.layer_norm_epsilon)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        before_blocks: Mapping[int, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType({}),
    ) -> torch.Tensor:
        """Return the last states `[B, T, d]`.

        Args:
            input_ids: `[B, T]`; or
            inputs_embeds: `[B, T, d]`.
            attention_mask: `[B, K]`, 1 for tokens, 0 for padding, over all tokens so far.
            position_ids: `[B, T]`; None: counted from the first token.
            past_key_values: key-value cache of the preceding tokens; extended in place.
            before_blocks: functions applied to the states before a block, by its number.
        """
        states_BTS = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            start = past_key_values.get_seq_length() if past_key_values is not None else 0
            end = start + states_BTS.shape[1]
            position_ids = torch.arange(start, end, device=states_BTS.device)[None]
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

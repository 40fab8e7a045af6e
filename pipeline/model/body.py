"""The body of a student: the base model of a decoder; GPT-Neo's with fused attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    Cache,
    GPTNeoConfig,
    GPTNeoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoBlock, GPTNeoMLP

from pipeline.errors import reason
from pipeline.model.self_attention import FusedSelfAttention
from pipeline.model.visible import needs_no_mask
from pipeline.pretrained.load import NO_CODE


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
    """GPT-Neo with fused attention."""

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
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Return the last states `[B, T, d]`.

        Args:
            input_ids: `[B, T]`; or
            inputs_embeds: `[B, T, d]`.
            attention_mask: `[B, K]`, 1 for tokens, 0 for padding, over all tokens so far.
            position_ids: `[B, T]`; None: counted from the first token.
            past_key_values: key-value cache of the preceding tokens; extended in place.
            use_cache: not read; a cache that is given is extended.
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
        for block in self.h:
            states_BTS = block(states_BTS, layer_past=past_key_values, attention_mask=mask_B1TK)[0]
        return BaseModelOutputWithPast(last_hidden_state=self.ln_f(states_BTS))


class NoPositions(nn.Module):
    """Replaces GPT-Neo's position embeddings: teacher states contain their positions."""

    def forward(self, position_ids_BT: torch.Tensor) -> torch.Tensor:
        """Return a zero to add; a bool, so that the sum keeps the type of the states."""
        return position_ids_BT.new_zeros((), dtype=torch.bool)


def build_body(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the body of a decoder's configuration, of the default floating-point type."""
    body: PreTrainedModel = (
        GPTNeoBody(config)
        if isinstance(config, GPTNeoConfig)
        else AutoModel.from_config(config, dtype=torch.get_default_dtype(), **NO_CODE)
    )
    return body


def remove_embeddings(body: PreTrainedModel) -> None:
    """Remove the token embeddings of a body that reads states, and GPT-Neo's positions.

    Other families keep their positions, which may be a part of their attention.
    """
    body.set_input_embeddings(None)  # type: ignore[arg-type]  # removes the module
    if isinstance(body, GPTNeoBody):
        body.register_module("wpe", NoPositions())


def embeddings_name(body: PreTrainedModel) -> str:
    """Return the name of the module of a body's token embeddings."""
    embeddings = body.get_input_embeddings()
    name: str = next(name for name, module in body.named_modules() if module is embeddings)
    return name


@torch.no_grad()
def in_evaluation(body: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    """Return the last states `[B, T, d]` of a body in evaluation mode."""
    was_training = body.training
    states_BTS: torch.Tensor = body.eval()(**inputs, use_cache=False).last_hidden_state
    body.train(was_training)
    return states_BTS


def causality_problem(body: PreTrainedModel, *, replaces_embeddings: bool) -> str | None:
    """Return why a body cannot be a student's, None if it can.

    Args:
        body: to be tried on a few tokens.
        replaces_embeddings: whether it reads states in place of tokens.
    """
    name, width = "inputs_embeds", int(body.config.hidden_size)
    inputs_BT = torch.linspace(-1, 1, 4 * width).view(1, 4, width)
    if not replaces_embeddings:
        name, inputs_BT = "input_ids", torch.arange(4)[None] % int(body.config.vocab_size)
    changed_BT = torch.cat([inputs_BT[:, :-1], inputs_BT[:, :1]], dim=1)
    try:
        states_BTS, changed_BTS = (
            in_evaluation(body, **{name: read}) for read in (inputs_BT, changed_BT)
        )
    except Exception as error:  # of many kinds
        return f"it cannot read {name} alone ({reason(error)})"
    if not torch.allclose(states_BTS[:, :-1], changed_BTS[:, :-1], atol=1e-4, rtol=1e-4):
        return "it attends to later tokens"
    return None

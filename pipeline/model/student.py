"""The student: a bridge from teacher states, a GPT-Neo body, and an LM head over the teacher's vocabulary."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from pipeline.labels import IGNORE
from pipeline.model.body import GPTNeoBody
from pipeline.model.bridge import Bridge
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.loss import next_token_loss


class HiddenStatesReader(Protocol):
    """Who gives the student hidden states while it generates: a live teacher with its key-value cache."""

    def read(self, input_ids_BT: torch.Tensor, attention_mask_BK: torch.Tensor | None) -> torch.Tensor:
        """Hidden states `[B, T, layers * d_teacher]` of the next tokens."""
        ...


class NoPositions(nn.Module):
    """Stands in for GPT-Neo's position embeddings: the teacher's states carry their positions already."""

    def forward(self, position_ids_BT: torch.Tensor) -> torch.Tensor:
        """A zero to add. It is a bool, so that the sum keeps the type of the states."""
        return position_ids_BT.new_zeros((), dtype=torch.bool)


class LLMModulesForCausalLM(PreTrainedModel, GenerationMixin):
    """GPT-Neo that reads a frozen large model's hidden states instead of tokens (arXiv 2502.08213). No teacher inside.

    With `condition="sequence"` GPT-Neo's token and position embeddings do not exist: they have no weights here, take no
    memory and are in no checkpoint. With `condition="none"` they are trained, and there is no bridge.
    """

    config_class = LLMModulesConfig
    config: LLMModulesConfig
    base_model_prefix = "body"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["GPTNeoBlock", "EnhancedCrossAttention"]

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__(config)
        self.body = GPTNeoBody(config.body)
        self.bridge = Bridge(config) if config.condition == "sequence" else None
        if self.bridge is not None:
            self.body.set_input_embeddings(None)
            self.body.register_module("wpe", NoPositions())
        self.lm_head = nn.Linear(config.hidden_size, config.head_size or config.vocab_size, bias=False)
        self.head_tokens: torch.Tensor | None
        self.register_buffer("head_tokens", None if config.head_size is None else torch.arange(config.head_size))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override]  # no embeddings where states are read
        """The token embeddings, or None where hidden states take their place."""
        embeddings: nn.Module | None = self.body.wte
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The LM head."""
        head: nn.Module = self.lm_head
        return head

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        loss_only: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at each position.

        Args:
            input_ids: `[B, T]`; read only with `condition="none"`.
            hidden_states: `[B, T, layers * d_teacher]` teacher states; read only with `condition="sequence"`.
            attention_mask: `[B, T]`, 1 for tokens, 0 for padding; with `past_key_values`, over all tokens so far.
            labels: `[B, T]` token ids, not shifted; -100 where there is no loss.
            past_key_values: key-value cache of the tokens before these; extended in place.
            use_cache: whether to start such a cache.
            logits_to_keep: only the last so many positions' logits (0: all).
            loss_only: give no logits: those of a long example over a large vocabulary do not fit in memory.
            num_items_in_batch: divide the summed loss by this instead of by the labelled positions here.

        Raises:
            ValueError: what the condition reads was not given, or is of the wrong width.
        """
        embeds_BTS = None
        past = past_key_values
        if past is None and use_cache:
            past = DynamicCache()
        if attention_mask is None and past is not None and past.get_seq_length():
            read = hidden_states if self.bridge is not None else input_ids
            assert read is not None
            attention_mask = torch.ones(read.shape[0], past.get_seq_length() + read.shape[1], device=read.device)
        if self.bridge is not None:
            if hidden_states is None or hidden_states.shape[-1] != self.config.states_width:
                found = "none were given" if hidden_states is None else f"they are {hidden_states.shape[-1]} wide"
                raise ValueError(f"this student reads hidden_states [B, T, {self.config.states_width}]; {found}")
            embeds_BTS = self.bridge(hidden_states.to(self.lm_head.weight.dtype), attention_mask, past)
        elif input_ids is None:
            raise ValueError("this student reads input_ids; none were given")
        output = self.body(
            input_ids=None if embeds_BTS is not None else input_ids,
            inputs_embeds=embeds_BTS,
            attention_mask=attention_mask,
            position_ids=self._positions(input_ids, attention_mask),
            past_key_values=past,
            use_cache=past is not None,
        )
        states_BTS = output.last_hidden_state
        loss = logits = None
        if labels is not None:
            total, count = next_token_loss(states_BTS, self.lm_head.weight, self._rows_of(labels.to(states_BTS.device)))
            loss = total / (count if num_items_in_batch is None else num_items_in_batch)
        if not loss_only:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) and logits_to_keep else slice(None)
            kept_BTS = states_BTS[:, kept] if isinstance(logits_to_keep, int) else states_BTS[:, logits_to_keep]
            logits = self._over_vocabulary(self.lm_head(kept_BTS))
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past)

    def _rows_of(self, labels_BT: torch.Tensor) -> torch.Tensor:
        """The head's rows of the labelled tokens; one past the last row, which is an error, for those that it does not span."""
        if self.head_tokens is None:
            return labels_BT
        rows_BT = torch.searchsorted(self.head_tokens, labels_BT).clamp(max=len(self.head_tokens) - 1)
        rows_BT = rows_BT.where(self.head_tokens[rows_BT] == labels_BT, len(self.head_tokens))
        return rows_BT.where(labels_BT != IGNORE, IGNORE)

    def _over_vocabulary(self, logits_BTH: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, vocabulary]`: those of tokens that the head does not span are -inf."""
        if self.head_tokens is None:
            return logits_BTH
        logits_BTV = logits_BTH.new_full((*logits_BTH.shape[:-1], self.config.vocab_size), -torch.inf)
        logits_BTV[..., self.head_tokens] = logits_BTH
        return logits_BTV

    def prepare_inputs_for_generation(  # type: ignore[override]  # generate() passes everything by keyword
        self,
        input_ids: torch.Tensor,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        reader: HiddenStatesReader | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Read the hidden states of the tokens not yet in the key-value cache (`generate` calls this for each step)."""
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        new_ids_BT = input_ids[:, seen:]
        inputs = {
            "input_ids": new_ids_BT,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": kwargs.get("use_cache"),
            "logits_to_keep": 1,
        }
        if self.bridge is not None:
            if reader is None:
                raise ValueError("this student reads a teacher's hidden states; pass generate(..., reader=...)")
            inputs["hidden_states"] = reader.read(new_ids_BT, attention_mask)
        return inputs

    def _positions(self, input_ids_BT: torch.Tensor | None, attention_mask_BK: torch.Tensor | None) -> torch.Tensor | None:
        """Positions `[B, T]` counted without padding, where GPT-Neo's own embeddings need them."""
        if self.bridge is not None or attention_mask_BK is None:
            return None
        assert input_ids_BT is not None
        return (attention_mask_BK.long().cumsum(-1) - 1).clamp(min=0)[:, -input_ids_BT.shape[1] :]

"""The student: a bridge from teacher states, a decoder as its body, and an LM head."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from pipeline.labels import IGNORE
from pipeline.model.blocks import BeforeBlocks, can_checkpoint, find_blocks
from pipeline.model.body import build_body, embeddings_name, remove_embeddings
from pipeline.model.bridges.interface import (
    GenerationStep,
    HiddenStatesReader,
    StudentInputs,
    positions,
)
from pipeline.model.bridges.joins.projection import Output
from pipeline.model.bridges.registry import build_bridge
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.cross_attention import Gate
from pipeline.model.loss import SoftTargets, next_token_loss, token_losses
from pipeline.model.token_rows import rows_of_tokens, spread_over
from pipeline.model.visible import needs_no_mask


class LLMModulesForCausalLM(PreTrainedModel, GenerationMixin):
    """A decoder that reads the hidden states of a frozen large model (arXiv 2502.08213).

    The decoder is a GPT-Neo, as in the paper, or any other of transformers. With
    `condition="sequence"` it has no token embeddings (GPT-Neo no position embeddings either), in
    memory or in checkpoints. With `prompt` it is complete, with cross-attention to the teacher's
    states of a prompt before some of its blocks; untrained it equals the decoder alone. With `none`
    and `text` the bridge has no weights.

    `_tied_weights_keys` and the like are how transformers lets models declare these properties.
    """

    config_class = LLMModulesConfig
    config: LLMModulesConfig
    base_model_prefix = "body"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = ["EnhancedCrossAttention"]

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__(config)
        self.body = build_body(config.body)
        self.bridge = build_bridge(config)
        if self.bridge.replaces_embeddings:
            remove_embeddings(self.body)
        else:
            embeddings = embeddings_name(self.body)
            self._tied_weights_keys = {"lm_head.weight": f"body.{embeddings}.weight"}
        blocks = find_blocks(self.body, config.blocks)
        self._before_blocks = BeforeBlocks(blocks)
        self._takes_positions = "position_ids" in signature(self.body.forward).parameters
        self.supports_gradient_checkpointing = can_checkpoint(blocks)
        self.lm_head = nn.Linear(
            config.hidden_size, config.head_size or config.vocab_size, bias=False
        )
        self.head_tokens: torch.Tensor | None
        self.register_buffer(
            "head_tokens", None if config.head_size is None else torch.arange(config.head_size)
        )
        self.embedded_tokens: torch.Tensor | None
        self.register_buffer(
            "embedded_tokens",
            None if config.embedded_size is None else torch.arange(config.embedded_size),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Output) or (isinstance(module, Gate) and module.starts_closed):
            init.zeros_(module.weight)

    def get_input_embeddings(self) -> nn.Module | None:  # type: ignore[override]  # no embeddings where states are read
        """Return the token embeddings; None if hidden states replace them."""
        return None if self.bridge.replaces_embeddings else self.body.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the LM head."""
        head: nn.Module = self.lm_head
        return head

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        hidden_states: torch.Tensor | None = None,
        states_mask: torch.Tensor | None = None,
        state_places: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        loss_only: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
        soft_targets: SoftTargets | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at each position.

        Args:
            input_ids: `[B, T]`; not read with `condition="sequence"`.
            hidden_states: teacher states: with `condition="sequence"` `[B, T, layers * d_teacher]`
                of the same tokens; with `prompt` `[B, K, layers * d_teacher]` of the prompts, which
                later calls take from `past_key_values`.
            states_mask: `[B, K]`, 1 for states of a prompt, 0 for padding; with `prompt`.
            state_places: `[B, T]`, for each token the index of the state that is added to its
                embedding, -1 for none; with `prompt` and the join `add`.
            attention_mask: `[B, T]`, 1 for tokens, 0 for padding; with `past_key_values`, over all
                tokens so far.
            labels: `[B, T]` token ids, not shifted; -100 where there is no loss.
            past_key_values: key-value cache of the preceding tokens; extended in place.
            use_cache: whether to start such a cache.
            logits_to_keep: number of last positions with logits (0: all), or positions.
            loss_only: return no logits, which do not fit in memory for long examples.
            num_items_in_batch: divide the summed loss by this, not by the number of labels here.
            soft_targets: a teacher's predictions, learned with the labels.

        Raises:
            ValueError: an input of the condition is missing or has the wrong width.
        """
        past = past_key_values
        if past is None and use_cache:
            past = DynamicCache()
        states_BTS = self._last_states(
            input_ids, hidden_states, states_mask, state_places, attention_mask, past
        )
        loss = logits = None
        if labels is not None:
            rows_BT = self._rows_of(labels.to(states_BTS.device))
            total, count = next_token_loss(states_BTS, self.lm_head.weight, rows_BT, soft_targets)
            loss = total / (count if num_items_in_batch is None else num_items_in_batch)
        if not loss_only:
            kept = (
                slice(-logits_to_keep, None)
                if isinstance(logits_to_keep, int) and logits_to_keep
                else slice(None)
            )
            kept_BTS = (
                states_BTS[:, kept]
                if isinstance(logits_to_keep, int)
                else states_BTS[:, logits_to_keep]
            )
            logits = self._over_vocabulary(self.lm_head(kept_BTS))
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past)

    @torch.no_grad()
    def token_losses(
        self,
        labels: torch.Tensor,
        input_ids: torch.Tensor | None = None,
        hidden_states: torch.Tensor | None = None,
        states_mask: torch.Tensor | None = None,
        state_places: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Return the cross-entropy `[B, T]` (nats) of each labelled token, 0 elsewhere."""
        states_BTS = self._last_states(
            input_ids, hidden_states, states_mask, state_places, attention_mask, None
        )
        return token_losses(
            states_BTS, self.lm_head.weight, self._rows_of(labels.to(states_BTS.device))
        )

    def _last_states(
        self,
        input_ids: torch.Tensor | None,
        hidden_states: torch.Tensor | None,
        states_mask: torch.Tensor | None,
        state_places: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past: Cache | None,
    ) -> torch.Tensor:
        """Return the body's last states `[B, T, d_student]`."""
        if input_ids is not None:
            input_ids = self._embedding_rows(input_ids)
        if hidden_states is not None:
            hidden_states = hidden_states.to(self.lm_head.weight.dtype)
        if attention_mask is None and past is not None and (seen := past.get_seq_length()):
            read = hidden_states if self.bridge.replaces_embeddings else input_ids
            assert read is not None
            attention_mask = torch.ones(read.shape[0], seen + read.shape[1], device=read.device)
        inputs = self.bridge.body_inputs(
            StudentInputs(
                input_ids=input_ids,
                hidden_states=hidden_states,
                states_mask=states_mask,
                state_places=state_places,
                attention_mask=attention_mask,
                past=past,
                embed=self._embed,
            )
        )
        return self._run_body(inputs, attention_mask, past)

    def _embed(self, input_ids_BT: torch.Tensor) -> torch.Tensor:
        embedded_BTS: torch.Tensor = self.body.get_input_embeddings()(input_ids_BT)
        return embedded_BTS

    def _run_body(
        self, inputs: dict[str, Any], attention_mask: torch.Tensor | None, past: Cache | None
    ) -> torch.Tensor:
        """Return the last states `[B, T, d_student]` for the arguments that a bridge made."""
        before_blocks = inputs.pop("before_blocks", {})
        read = inputs["inputs_embeds"] if "inputs_embeds" in inputs else inputs["input_ids"]
        if attention_mask is not None and needs_no_mask(attention_mask, read.shape[1]):
            # without a mask, transformers would take positions of padding for packed examples
            attention_mask = None
            inputs.pop("position_ids", None)
        inputs.setdefault("position_ids", positions(read, attention_mask))
        if not self._takes_positions:
            del inputs["position_ids"]
        with self._before_blocks.applied(before_blocks):
            output = self.body(
                **inputs,
                attention_mask=attention_mask,
                past_key_values=past,
                use_cache=past is not None,
            )
        states_BTS: torch.Tensor = output.last_hidden_state
        return states_BTS

    def _embedding_rows(self, input_ids_BT: torch.Tensor) -> torch.Tensor:
        """Return the row of each token's embedding; the last one is that of all other tokens."""
        if self.embedded_tokens is None:
            return input_ids_BT
        return rows_of_tokens(self.embedded_tokens, input_ids_BT)

    def _rows_of(self, labels_BT: torch.Tensor) -> torch.Tensor:
        """Return the LM head's row of each label; the loss refuses one without a row."""
        if self.head_tokens is None:
            return labels_BT
        return rows_of_tokens(self.head_tokens, labels_BT).where(labels_BT != IGNORE, IGNORE)

    def _over_vocabulary(self, logits_BTH: torch.Tensor) -> torch.Tensor:
        """Return logits `[B, T, vocabulary]`, -inf for tokens that the head does not span."""
        if self.head_tokens is None:
            return logits_BTH
        return spread_over(logits_BTH, self.head_tokens, self.config.vocab_size)

    def prepare_inputs_for_generation(  # type: ignore[override]  # generate() passes everything by keyword
        self,
        input_ids: torch.Tensor,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        reader: HiddenStatesReader | None = None,
        hidden_states: torch.Tensor | None = None,
        states_mask: torch.Tensor | None = None,
        state_places: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the arguments of one step of `generate`."""
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        new_ids_BT = input_ids[:, seen:]
        inputs = {
            "input_ids": new_ids_BT,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": kwargs.get("use_cache"),
            "logits_to_keep": 1,
        }
        return inputs | self.bridge.generation_inputs(
            GenerationStep(
                input_ids=input_ids,
                attention_mask=attention_mask,
                seen=seen,
                reader=reader,
                hidden_states=hidden_states,
                states_mask=states_mask,
                state_places=state_places,
            )
        )

"""The student: a bridge from teacher states, a GPT-Neo body, and an LM head."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from pipeline.labels import IGNORE
from pipeline.model.body import GPTNeoBody
from pipeline.model.bridge import Bridge, PromptBridge
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.cross_attention import Gate
from pipeline.model.loss import SoftTargets, next_token_loss, token_losses


class HiddenStatesReader(Protocol):
    """Who gives the student hidden states while it generates: a live teacher with its key-value
    cache."""

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        """Hidden states `[B, K - first, layers * d_teacher]` of all tokens so far from the one
        numbered `first` on."""
        ...


class NoPositions(nn.Module):
    """Stands in for GPT-Neo's position embeddings: the teacher's states carry their positions
    already."""

    def forward(self, position_ids_BT: torch.Tensor) -> torch.Tensor:
        """A zero to add. It is a bool, so that the sum keeps the type of the states."""
        return position_ids_BT.new_zeros((), dtype=torch.bool)


class LLMModulesForCausalLM(PreTrainedModel, GenerationMixin):
    """GPT-Neo that reads a frozen large model's hidden states instead of tokens (arXiv 2502.08213).
    No teacher inside.

    With `condition="sequence"` GPT-Neo's token and position embeddings do not exist: they have no
    weights here, take no memory and are in no checkpoint. With `prompt` GPT-Neo is whole, its LM
    head tied to its embeddings, and looks at the teacher's states of a prompt from within;
    untrained it is GPT-Neo as it was. With `none` and `text` there is no bridge."""

    config_class = LLMModulesConfig
    config: LLMModulesConfig
    base_model_prefix = "body"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "body.wte.weight"}
    _no_split_modules = ["GPTNeoBlock", "EnhancedCrossAttention"]

    def __init__(self, config: LLMModulesConfig) -> None:
        super().__init__(config)
        self.body = GPTNeoBody(config.body)
        kinds: dict[str, type[Bridge | PromptBridge]] = {"sequence": Bridge, "prompt": PromptBridge}
        self.bridge = kinds[config.condition](config) if config.reads_states else None
        if isinstance(self.bridge, Bridge):
            self.body.set_input_embeddings(None)
            self.body.register_module("wpe", NoPositions())
        self.lm_head = nn.Linear(
            config.hidden_size, config.head_size or config.vocab_size, bias=False
        )
        self.head_tokens: torch.Tensor | None
        self.register_buffer(
            "head_tokens", None if config.head_size is None else torch.arange(config.head_size)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Gate) and module.starts_closed:
            init.zeros_(module.weight)

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
        states_mask: torch.Tensor | None = None,
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
            hidden_states: teacher states, `[B, T, layers * d_teacher]` of the same tokens with
                `condition="sequence"`, `[B, K, layers * d_teacher]` of the prompts with `prompt`,
                which `past_key_values` keeps from then on.
            states_mask: `[B, K]`, 1 for states of a prompt, 0 for padding; with `prompt`.
            attention_mask: `[B, T]`, 1 for tokens, 0 for padding; with `past_key_values`, over all
                tokens so far.
            labels: `[B, T]` token ids, not shifted; -100 where there is no loss.
            past_key_values: key-value cache of the tokens before these; extended in place.
            use_cache: whether to start such a cache.
            logits_to_keep: only the last so many positions' logits (0: all).
            loss_only: give no logits: those of a long example over a large vocabulary do not fit in
                memory.
            num_items_in_batch: divide the summed loss by this instead of by the labelled positions
                here.
            soft_targets: a teacher's distributions, to be learned beside the labels.

        Raises:
            ValueError: what the condition reads was not given, or is of the wrong width.
        """
        past = past_key_values
        if past is None and use_cache:
            past = DynamicCache()
        states_BTS = self._last_states(input_ids, hidden_states, states_mask, attention_mask, past)
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
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Cross-entropy `[B, T]` (nats) of each labelled token, 0 elsewhere; what `forward` takes
        the mean of."""
        states_BTS = self._last_states(input_ids, hidden_states, states_mask, attention_mask, None)
        return token_losses(
            states_BTS, self.lm_head.weight, self._rows_of(labels.to(states_BTS.device))
        )

    def _last_states(
        self,
        input_ids: torch.Tensor | None,
        hidden_states: torch.Tensor | None,
        states_mask: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past: Cache | None,
    ) -> torch.Tensor:
        """GPT-Neo's last states `[B, T, d_student]`."""
        self._require_input(input_ids, hidden_states)
        if hidden_states is not None:
            hidden_states = hidden_states.to(self.lm_head.weight.dtype)
        read = hidden_states if self.config.condition == "sequence" else input_ids
        assert read is not None
        if attention_mask is None and past is not None and past.get_seq_length():
            attention_mask = torch.ones(
                read.shape[0], past.get_seq_length() + read.shape[1], device=read.device
            )
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "position_ids": self._positions(read, attention_mask),
        }
        if isinstance(self.bridge, Bridge):
            inputs = {"inputs_embeds": self.bridge(hidden_states, attention_mask, past)}
        elif isinstance(self.bridge, PromptBridge):
            inputs["before_blocks"] = self.bridge.before_blocks(hidden_states, states_mask, past)
        states_BTS: torch.Tensor = self.body(
            **inputs, attention_mask=attention_mask, past_key_values=past
        )
        return states_BTS

    def _require_input(
        self, input_ids: torch.Tensor | None, hidden_states: torch.Tensor | None
    ) -> None:
        """Refuse input that the condition cannot read."""
        if self.config.condition != "sequence" and input_ids is None:
            raise ValueError("this student reads input_ids; none were given")
        width = self.config.states_width
        if self.config.condition == "sequence" and hidden_states is None:
            raise ValueError(f"this student reads hidden_states [B, T, {width}]; none were given")
        if (
            self.config.reads_states
            and hidden_states is not None
            and hidden_states.shape[-1] != width
        ):
            raise ValueError(
                f"this student reads hidden_states [B, T, {width}]; they are"
                f" {hidden_states.shape[-1]} wide"
            )

    def _rows_of(self, labels_BT: torch.Tensor) -> torch.Tensor:
        """The head's rows of the labelled tokens; one past the last row, which is an error, for
        those that it does not span."""
        if self.head_tokens is None:
            return labels_BT
        rows_BT = torch.searchsorted(self.head_tokens, labels_BT).clamp(
            max=len(self.head_tokens) - 1
        )
        rows_BT = rows_BT.where(self.head_tokens[rows_BT] == labels_BT, len(self.head_tokens))
        return rows_BT.where(labels_BT != IGNORE, IGNORE)

    def _over_vocabulary(self, logits_BTH: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, vocabulary]`: those of tokens that the head does not span are -inf."""
        if self.head_tokens is None:
            return logits_BTH
        logits_BTV = logits_BTH.new_full(
            (*logits_BTH.shape[:-1], self.config.vocab_size), -torch.inf
        )
        logits_BTV[..., self.head_tokens] = logits_BTH
        return logits_BTV

    def prepare_inputs_for_generation(  # type: ignore[override]  # generate() passes everything by keyword
        self,
        input_ids: torch.Tensor,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        reader: HiddenStatesReader | None = None,
        hidden_states: torch.Tensor | None = None,
        states_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What one step of `generate` needs: with `condition="sequence"` the states of the tokens
        that the key-value cache does not have are read now; with `prompt` those of the prompts are
        given to `generate` and needed at the first step alone."""
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        new_ids_BT = input_ids[:, seen:]
        inputs = {
            "input_ids": new_ids_BT,
            "past_key_values": past_key_values,
            "attention_mask": attention_mask,
            "use_cache": kwargs.get("use_cache"),
            "logits_to_keep": 1,
        }
        if self.config.condition == "prompt":
            inputs |= {"hidden_states": None if seen else hidden_states, "states_mask": states_mask}
        elif self.config.condition == "sequence":
            if reader is None:
                raise ValueError(
                    "this student reads a teacher's hidden states; pass generate(..., reader=...)"
                )
            inputs["hidden_states"] = reader.read(input_ids, attention_mask, seen)
        return inputs

    def _positions(
        self, read_BT: torch.Tensor, attention_mask_BK: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Positions `[B, T]` counted without padding."""
        if attention_mask_BK is None:
            return None
        return (attention_mask_BK.long().cumsum(-1) - 1).clamp(min=0)[:, -read_BT.shape[1] :]

"""The frozen teacher: its body without the LM head, giving the hidden states of the layers asked for and no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import (
    Cache,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)

from pipeline.errors import InputError
from pipeline.teacher.layers import indices_of
from pipeline.teacher.source import TeacherKind


def decoder_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a configuration that describes the text decoder.

    Raises:
        InputError: it does not say how many layers there are, how wide, or over which vocabulary.
    """
    decoder: PreTrainedConfig = config.get_text_config(decoder=True)
    for field in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if not isinstance(getattr(decoder, field, None), int):
            raise InputError(
                f"teacher: a {config.model_type} configuration has no {field}; it is no decoder of a kind known here"
            )
    return decoder


def context_of(config: PreTrainedConfig) -> int | None:
    """Tokens that a text decoder reads; None where its configuration does not say.

    Raises:
        InputError: as `decoder_config`.
    """
    found = getattr(decoder_config(config), "max_position_embeddings", None)
    return None if found is None else int(found)


def resolve_layers(layers: Sequence[int], config: PreTrainedConfig) -> dict[int, int]:
    """Each layer asked for with its index counted from the embeddings (0) to the output after the final norm.

    Raises:
        InputError: no such layer, or one asked for twice.
    """
    return indices_of(layers, int(config.num_hidden_layers))


class Teacher:
    """A frozen model that reads tokens and gives hidden states.

    Layer indices are those of transformers' `hidden_states`: 0 the embeddings, i the output of block i, and the last one
    (or -1) the output after the final norm.
    """

    def __init__(
        self, body: PreTrainedModel, layers: Sequence[int], lm_head: nn.Module | None = None, kind: TeacherKind = "decoder"
    ) -> None:
        """Freeze a body, and the LM head where that is to be asked what the states predict.

        Raises:
            InputError: it has no such layer, is not of the kind named, or is built in a way that does not show its layers.
        """
        self.body = body.eval().requires_grad_(False)
        self.layers = resolve_layers(layers, decoder_config(body.config))
        self._blocks = _find_blocks(body)
        self._depth = len(self._blocks)
        del self._blocks[max(1, *self.layers.values()) :]  # what lies above the last layer asked for is never run
        self._lm_head: Any = lm_head
        self._head_weights: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.causal = kind == "decoder"
        self._require_kind()
        self.goes_on = self.causal and self._goes_on()

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.body.device
        return device

    @property
    def has_lm_head(self) -> bool:
        """Whether it was loaded with its LM head."""
        return self._lm_head is not None

    @property
    def width(self) -> int:
        """Width of the hidden states, `d_teacher`."""
        return int(decoder_config(self.body.config).hidden_size)

    @property
    def context(self) -> int | None:
        """Tokens that it reads; None where its configuration does not say."""
        return context_of(self.body.config)

    def is_last(self, layer: int) -> bool:
        """Whether a layer is the one that the LM head reads."""
        return self.layers[layer] == self._depth

    @torch.inference_mode()
    def log_probabilities(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[N, vocabulary]` of the next token, from states of the last layer; in float32, whatever the
        teacher computes in: bfloat16's rounding of logits alone would look like a divergence of a few 1e-4 nats.

        Raises:
            InputError: the teacher was loaded without its LM head, or has none.
        """
        if self._lm_head is None:
            raise InputError(f"teacher {type(self.body).__name__}: has no LM head to measure a KL divergence with; ask for rel=…")
        if self._head_weights is None:
            bias = getattr(self._lm_head, "bias", None)
            self._head_weights = self._lm_head.weight.float(), None if bias is None else bias.float()
        logits_NV = linear(hidden_ND.to(self.device, torch.float32), *self._head_weights)
        if cap := getattr(decoder_config(self.body.config), "final_logit_softcapping", None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV.log_softmax(dim=-1)

    def lm_head_rows(self, tokens: Sequence[int]) -> torch.Tensor:
        """Rows `[len(tokens), d_teacher]` of the LM head, in the type that the teacher computes in.

        Raises:
            InputError: there is no LM head, or it is no plain product with a row for each token.
        """
        weight = getattr(self._lm_head, "weight", None)
        if getattr(self._lm_head, "bias", None) is not None:
            raise InputError(f"--keep-head: the LM head of teacher {type(self.body).__name__} has a bias; leave it out")
        if weight is None or weight.ndim != 2 or weight.shape[0] <= max(tokens) or weight.shape[1] != self.width:
            raise InputError(f"--keep-head: teacher {type(self.body).__name__} has no LM head with a row for each token")
        rows: torch.Tensor = weight.detach()[torch.tensor(tokens, device=weight.device)].clone()
        return rows

    def drop_lm_head(self) -> None:
        """Let go of the LM head, which only a KL divergence needs."""
        self._lm_head = self._head_weights = None

    @torch.inference_mode()
    def hidden_states(
        self, input_ids_BT: torch.Tensor, attention_mask_BT: torch.Tensor | None = None, past: Cache | None = None
    ) -> dict[int, torch.Tensor]:
        """Hidden states `[B, T, d_teacher]` of each asked layer.

        Args:
            input_ids_BT: token ids.
            attention_mask_BT: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: the teacher's key-value cache of the tokens before these; extended in place.
        """
        positions_BT = None
        if attention_mask_BT is not None:
            positions_BT = (attention_mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -input_ids_BT.shape[1] :]
        with self._kept() as kept:
            output = self.body(
                input_ids=input_ids_BT,
                attention_mask=attention_mask_BT,
                position_ids=positions_BT,
                past_key_values=past,
                use_cache=past is not None,
            )
        if len(self._blocks) == self._depth:
            kept[self._depth] = output.last_hidden_state  # after the final norm
        return {layer: kept[index] for layer, index in self.layers.items()}

    def _require_kind(self) -> None:
        """Read two texts that differ in their last token: what comes before must not change in a decoder.

        An encoder asked for its embeddings alone shows no difference, and needs none.
        """
        ids_BT = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=self.device)
        states_BTD = self.hidden_states(ids_BT)
        changed = any(
            not torch.allclose(states[0, :3], states[1, :3], rtol=1e-2, atol=1e-2, equal_nan=True)
            for states in states_BTD.values()
        )
        family = type(self.body).__name__
        if changed and self.causal:
            raise InputError(
                f"teacher {family}: sees later tokens, so its states would leak the answer; use a causal decoder, or "
                "--teacher-kind encoder for a cache that is marked as leaking"
            )
        if not changed and not self.causal and any(self.layers.values()):
            raise InputError(f"teacher {family}: sees no later tokens: it is a decoder; leave --teacher-kind encoder out")

    def _goes_on(self) -> bool:
        """Whether tokens read in two parts, the second from the key-value cache of the first, get the states of one pass."""
        ids_BT = torch.tensor([[1, 2, 3, 4]], device=self.device)
        mask_BT = torch.ones_like(ids_BT)
        past = DynamicCache()
        try:
            self.hidden_states(ids_BT[:, :2], mask_BT[:, :2], past)
            rest = self.hidden_states(ids_BT[:, 2:], mask_BT, past)
        except Exception:  # whatever a model of an unknown kind does with a key-value cache
            return False
        whole = self.hidden_states(ids_BT, mask_BT)
        return all(
            torch.allclose(rest[layer][0], hidden[0, 2:], rtol=5e-2, atol=5e-2 * _largest(hidden), equal_nan=True)
            for layer, hidden in whole.items()
        )

    @contextmanager
    def _kept(self) -> Iterator[dict[int, torch.Tensor]]:
        """Collects what enters block 0 and what leaves the other asked blocks, while the body runs."""
        kept: dict[int, torch.Tensor] = {}

        def keep_input(_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            kept[0] = args[0] if args else kwargs["hidden_states"]

        def keep_output(index: int) -> Any:
            def hook(_block: nn.Module, _args: Any, output: Any) -> None:
                kept[index] = output[0] if isinstance(output, tuple) else output

            return hook

        handles = []
        for index in self.layers.values():
            if index == 0:
                handles.append(self._blocks[0].register_forward_pre_hook(keep_input, with_kwargs=True))
            elif index < self._depth:
                handles.append(self._blocks[index - 1].register_forward_hook(keep_output(index)))
        try:
            yield kept
        finally:
            for handle in handles:
                handle.remove()


def _largest(hidden: torch.Tensor) -> float:
    return float(hidden.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max())


def _find_blocks(body: PreTrainedModel) -> nn.ModuleList:
    count = int(decoder_config(body.config).num_hidden_layers)
    for module in body.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"teacher {type(body).__name__}: none of its module lists has the {count} layers that its config names")

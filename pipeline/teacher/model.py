"""The frozen teacher: its body without the LM head, giving the hidden states of the layers asked
for and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import Cache, PreTrainedModel

from pipeline.errors import InputError
from pipeline.teacher.hidden_states_reader import HiddenStatesReader
from pipeline.teacher.shape import context_length, decoder_config, resolve_layers
from pipeline.teacher.source import TeacherKind


class Teacher:
    """A frozen model that reads tokens and gives hidden states.

    Layer indices are those of transformers' `hidden_states`: 0 the embeddings, i the output of
    block i, and the last one (or -1) the output after the final norm. What a text's states are is
    what a plain pass of transformers gives: how the model is best read (positions, padding,
    key-value cache) is tried out on a few tokens, and held against that."""

    def __init__(
        self,
        body: PreTrainedModel,
        layers: Sequence[int],
        lm_head: nn.Module | None = None,
        kind: TeacherKind = "decoder",
    ) -> None:
        """Freeze a body, and the LM head where that is to be asked what the states predict.

        Raises:
            InputError: it has no such layer, is not of the kind named, or does not show its layers.
        """
        self.body = body.eval().requires_grad_(False)
        self._shape = decoder_config(body.config, kind)
        self._kind = kind
        self.layers = resolve_layers(layers, self._shape)
        self._reader = HiddenStatesReader(body, self.layers.values())
        self._require_shape()
        self._lm_head: Any = lm_head
        self._head_weights: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.causal = kind == "decoder"
        self._require_kind()

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
        return int(self._shape.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Rows of its embeddings."""
        return int(decoder_config(self.body.config).vocab_size)

    @property
    def context_length(self) -> int | None:
        """Tokens that it reads; None where its configuration does not say."""
        return context_length(self.body.config, self._kind)

    def is_last(self, layer: int) -> bool:
        """Whether a layer is the one that the LM head reads."""
        return self.layers[layer] == self._reader.depth

    @torch.inference_mode()
    def log_probabilities(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[N, vocabulary]` of the next token, from states of the last layer; in
        float32, whatever the
        teacher computes in: bfloat16's rounding of logits alone would look like a divergence of a
            few 1e-4 nats.

        Raises:
            InputError: the teacher was loaded without its LM head, or has none.
        """
        if self._lm_head is None:
            raise InputError(
                f"teacher {self._family}: has no LM head to measure a KL divergence with; ask for"
                " rel=…"
            )
        if self._head_weights is None:
            bias = getattr(self._lm_head, "bias", None)
            self._head_weights = (
                self._lm_head.weight.float(),
                None if bias is None else bias.float(),
            )
        logits_NV = linear(hidden_ND.to(self.device, torch.float32), *self._head_weights)
        if cap := getattr(self._shape, "final_logit_softcapping", None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
        return logits_NV.log_softmax(dim=-1)

    def lm_head_rows(self, tokens: Sequence[int]) -> torch.Tensor:
        """Rows `[len(tokens), d_teacher]` of the LM head, in the type that the teacher computes in.

        Raises:
            InputError: there is no LM head, or it is no plain product with a row for each token.
        """
        weight = getattr(self._lm_head, "weight", None)
        if getattr(self._lm_head, "bias", None) is not None:
            raise InputError(
                f"--keep-head: the LM head of teacher {self._family} has a bias; leave it out"
            )
        if (
            weight is None
            or weight.ndim != 2
            or weight.shape[0] <= max(tokens)
            or weight.shape[1] != self.width
        ):
            raise InputError(
                f"--keep-head: teacher {self._family} has no LM head with a row for each token"
            )
        rows: torch.Tensor = weight.detach()[torch.tensor(tokens, device=weight.device)].clone()
        return rows

    def drop_lm_head(self) -> None:
        """Let go of the LM head, which only a KL divergence needs."""
        self._lm_head = self._head_weights = None

    @torch.inference_mode()
    def hidden_states(
        self,
        input_ids_BT: torch.Tensor,
        attention_mask_BT: torch.Tensor | None = None,
        past: Cache | None = None,
    ) -> dict[int, torch.Tensor]:
        """Hidden states `[B, T, d_teacher]` of each asked layer.

        Args:
            input_ids_BT: token ids.
            attention_mask_BT: 1 for tokens, 0 for padding; with `past`, over all tokens so far.
            past: the teacher's key-value cache of the tokens before these; extended in place. Only
                where it `continues_from_kv`.
        """
        states = self._reader.read(input_ids_BT, attention_mask_BT, past)
        return {layer: states[index] for layer, index in self.layers.items()}

    @property
    def continues_from_kv(self) -> bool:
        """Whether tokens read in two parts, the second from the key-value cache of the first, get
        the states of one pass."""
        return self.causal and self._reader.continues_from_kv

    @property
    def _family(self) -> str:
        return type(self.body).__name__

    def _require_shape(self) -> None:
        """Hold what the configuration says of layers and width against what there is."""
        if self._reader.depth != int(self._shape.num_hidden_layers):
            raise InputError(
                f"teacher {self._family}: gives the states of {self._reader.depth + 1} layers, its"
                f" configuration says {self._shape.num_hidden_layers} and the embeddings; it is of"
                " no kind known here"
            )
        for layer, index in self.layers.items():
            if (width := self._reader.width(index)) != self.width:
                raise InputError(
                    f"teacher {self._family}: layer {layer} is {width} wide, and hidden_size of its"
                    f" configuration {self.width}; take another layer"
                )

    def _require_kind(self) -> None:
        """Of two texts that differ in their last token, what comes before must not change in a
        decoder.

        An encoder asked for its embeddings alone shows no difference, and needs none.
        """
        with torch.inference_mode():
            changed = self._reader.sees_later_tokens()
        if changed and self.causal:
            raise InputError(
                f"teacher {self._family}: sees later tokens, so its states would leak the answer;"
                " use a causal decoder, or --teacher-kind encoder for a cache that is marked as"
                " leaking"
            )
        if not changed and not self.causal and any(self.layers.values()):
            raise InputError(
                f"teacher {self._family}: sees no later tokens: it is a decoder; leave"
                " --teacher-kind encoder out"
            )

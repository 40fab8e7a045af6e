"""The frozen teacher: computes the hidden states of selected layers, and predictions from them."""

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
    """A frozen model that computes hidden states from tokens.

    Layer indices are those of transformers' `hidden_states`: 0 the embeddings, i the output of
    block i, and the last one (or -1) the output after the final norm. The states equal those of a
    plain pass of transformers: batching and caching are probed against it on a few tokens.
    """

    def __init__(
        self,
        body: PreTrainedModel,
        layers: Sequence[int],
        lm_head: nn.Module | None = None,
        kind: TeacherKind = "decoder",
    ) -> None:
        """Freeze a base model, and optionally the LM head for predictions from its states.

        Raises:
            InputError: it lacks a layer, is of the other kind, or returns no hidden states.
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
        """Return the compute device."""
        device: torch.device = self.body.device
        return device

    @property
    def has_lm_head(self) -> bool:
        """Return whether the LM head was loaded."""
        return self._lm_head is not None

    @property
    def width(self) -> int:
        """Return the width of the hidden states, `d_teacher`."""
        return int(self._shape.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Return the number of rows of the embeddings."""
        return int(decoder_config(self.body.config).vocab_size)

    @property
    def context_length(self) -> int | None:
        """Return the longest text in tokens, or None if the configuration does not limit it."""
        return context_length(self.body.config, self._kind)

    def is_last(self, layer: int) -> bool:
        """Return whether the LM head reads this layer."""
        return self.layers[layer] == self._reader.depth

    @torch.inference_mode()
    def log_probabilities(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities `[N, vocabulary]` of the next token, from the last layer.

        Computed in float32: rounding logits to bfloat16 would add a divergence of a few 1e-4 nats.

        Raises:
            InputError: the teacher has no LM head, or was loaded without it.
        """
        if self._lm_head is None:
            raise InputError(
                f"teacher {self._family}: no LM head to measure a KL divergence with; use"
                " --fidelity rel=…"
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
        """Return the tokens' rows `[len(tokens), d_teacher]` of the LM head, in the compute dtype.

        Raises:
            InputError: there is no LM head, or it is not a matrix with a row for each token.
        """
        weight = getattr(self._lm_head, "weight", None)
        if getattr(self._lm_head, "bias", None) is not None:
            raise InputError(
                f"--keep-head: the LM head of teacher {self._family} has a bias, which a cache"
                " cannot keep; omit --keep-head"
            )
        if (
            weight is None
            or weight.ndim != 2
            or weight.shape[0] <= max(tokens)
            or weight.shape[1] != self.width
        ):
            raise InputError(
                f"--keep-head: teacher {self._family} has no LM head with a row for each token;"
                " omit --keep-head"
            )
        rows: torch.Tensor = weight.detach()[torch.tensor(tokens, device=weight.device)].clone()
        return rows

    def drop_lm_head(self) -> None:
        """Free the LM head, which only a KL divergence needs."""
        self._lm_head = self._head_weights = None

    @torch.inference_mode()
    def hidden_states(
        self,
        input_ids_BT: torch.Tensor,
        attention_mask_BT: torch.Tensor | None = None,
        past: Cache | None = None,
        layers: Sequence[int] | None = None,
    ) -> dict[int, torch.Tensor]:
        """Return the hidden states `[B, T, d_teacher]` of each selected layer.

        Args:
            input_ids_BT: token ids.
            attention_mask_BT: 1 for tokens, 0 for padding; with `past`, for all tokens so far.
            past: key-value cache of earlier tokens, extended in place; requires
                `continues_from_kv`.
            layers: some of the selected layers, the same for all calls with one `past`; blocks
                above the last one do not run. None: all.
        """
        selected = {layer: self.layers[layer] for layer in layers or self.layers}
        states = self._reader.read(input_ids_BT, attention_mask_BT, past, {*selected.values()})
        return {layer: states[index] for layer, index in selected.items()}

    @property
    def continues_from_kv(self) -> bool:
        """Return whether states computed from a key-value cache equal those of one pass."""
        return self.causal and self._reader.continues_from_kv

    @property
    def _family(self) -> str:
        return type(self.body).__name__

    def _require_shape(self) -> None:
        """Compare number and width of layers with the configuration."""
        if self._reader.depth != int(self._shape.num_hidden_layers):
            raise InputError(
                f"teacher {self._family}: returns {self._reader.depth} layers and the embeddings,"
                f" but its configuration says {self._shape.num_hidden_layers}; this family is not"
                " supported"
            )
        for layer, index in self.layers.items():
            if (width := self._reader.width(index)) != self.width:
                raise InputError(
                    f"teacher {self._family}: layer {layer} is {width} wide, but hidden_size in its"
                    f" configuration is {self.width}; choose another layer"
                )

    def _require_kind(self) -> None:
        """Require that later tokens change an encoder's states and not a decoder's.

        An encoder with only its embeddings selected is exempt.
        """
        with torch.inference_mode():
            changed = self._reader.sees_later_tokens()
        if changed and self.causal:
            raise InputError(
                f"teacher {self._family}: attends to later tokens, so its states leak the answer;"
                " use a causal decoder, or --teacher-kind encoder for a cache that is marked as"
                " leaking"
            )
        if not changed and not self.causal and any(self.layers.values()):
            raise InputError(
                f"teacher {self._family}: does not attend to later tokens, so it is a decoder; omit"
                " --teacher-kind encoder"
            )

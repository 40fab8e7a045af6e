"""The interface of bridges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from transformers import Cache

from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.cross_attention import EnhancedCrossAttention


class HiddenStatesReader(Protocol):
    """Source of hidden states during generation: a live teacher with its key-value cache."""

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        """Return hidden states `[B, K - first, layers * d_teacher]` from token `first` on."""
        ...


@dataclass(frozen=True)
class StudentInputs:
    """The arguments of a student's `forward` that its bridge reads.

    Attributes:
        input_ids: `[B, T]`.
        hidden_states: `[B, K, layers * d_teacher]`.
        states_mask: `[B, K]`, 1 for states, 0 for padding.
        state_places: `[B, T]`, for each token the index of its state, -1 for none.
        attention_mask: `[B, T]`, 1 for tokens, 0 for padding; with `past`, over all tokens so far.
        past: key-value cache of the preceding tokens; extended in place.
        embed: the decoder's token embeddings, from ids `[B, T]` to `[B, T, d_student]`.
    """

    input_ids: torch.Tensor | None
    hidden_states: torch.Tensor | None
    states_mask: torch.Tensor | None
    state_places: torch.Tensor | None
    attention_mask: torch.Tensor | None
    past: Cache | None
    embed: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class GenerationStep:
    """The arguments of one step of `generate` that a student's bridge reads.

    Attributes:
        input_ids, attention_mask: of all tokens so far.
        seen: number of tokens in the key-value cache.
        reader, hidden_states, states_mask, state_places: as passed to `generate`.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    seen: int
    reader: HiddenStatesReader | None
    hidden_states: torch.Tensor | None
    states_mask: torch.Tensor | None
    state_places: torch.Tensor | None


class CrossLayers(nn.ModuleList):
    """Enhanced Cross-Attention layers; in a key-value cache they follow the decoder's."""

    def __init__(self, config: LLMModulesConfig, count: int) -> None:
        first, closed = config.blocks, config.cross_blocks is not None
        super().__init__(
            EnhancedCrossAttention(config, first + number, starts_closed=closed)
            for number in range(count)
        )

    def __iter__(self) -> Iterator[EnhancedCrossAttention]:  # all have this type
        return super().__iter__()  # type: ignore[return-value]


class Bridge(nn.Module, ABC):
    """Turns the arguments of a student's `forward` into those of its decoder.

    Attributes:
        layers: its cross-attention layers.
        replaces_embeddings: whether the decoder has no token embeddings.
    """

    layers: CrossLayers
    replaces_embeddings = False

    @abstractmethod
    def body_inputs(self, inputs: StudentInputs) -> dict[str, Any]:
        """Return the arguments of the body's `forward` that depend on the condition.

        These are `input_ids` or `inputs_embeds`, and optionally `position_ids` (by default, counted
        without padding), and `before_blocks` (see `pipeline.model.blocks.Functions`).

        Raises:
            ValueError: an argument is missing or has the wrong width.
        """

    @property
    def layer_weights(self) -> list[float] | None:
        """The weights of the teacher's layers in the mean that is read, None without one."""
        return None

    def generation_inputs(self, step: GenerationStep) -> dict[str, Any]:
        """Return additional arguments of `forward` in one step of `generate`."""
        return {}


def require_tokens(input_ids: torch.Tensor | None) -> torch.Tensor:
    """Return the tokens.

    Raises:
        ValueError: there are none.
    """
    if input_ids is None:
        raise ValueError("this student reads input_ids; none were given")
    return input_ids


def require_width(hidden_states: torch.Tensor, width: int) -> torch.Tensor:
    """Return the hidden states.

    Raises:
        ValueError: their width is not that of the student's teacher layers.
    """
    if hidden_states.shape[-1] != width:
        raise ValueError(
            f"this student reads hidden_states [B, T, {width}]; they are"
            f" {hidden_states.shape[-1]} wide"
        )
    return hidden_states


def positions(read_BT: torch.Tensor, attention_mask_BK: torch.Tensor | None) -> torch.Tensor | None:
    """Return the positions `[B, T]` of the last tokens, not counting padding."""
    if attention_mask_BK is None:
        return None
    return (attention_mask_BK.long().cumsum(-1) - 1).clamp(min=0)[:, -read_BT.shape[1] :]

"""The interface of joins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import Cache

NO_STATES = "this student reads a prompt's hidden_states before its first token; none were given"


@dataclass
class BodyInputs:
    """The arguments of a body's `forward`, which joins extend one after the other.

    Attributes:
        embeds: token embeddings `[B, T, d]`.
        past: key-value cache of the preceding tokens; extended in place.
        before_blocks: functions of the states before some blocks, by block number.
    """

    embeds: torch.Tensor
    past: Cache | None
    before_blocks: dict[int, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class PromptInputs:
    """A prompt's states, as joins read them.

    Attributes:
        layers: of the prompt, `[B, K, d_teacher]` each; None at later steps of a generation.
        states_mask: `[B, K]`, 1 for states, 0 for padding; None: all ones.
        state_places: `[B, T]`, for each token the index of its state, -1 for none; None at later
            steps.
    """

    layers: Sequence[torch.Tensor] | None
    states_mask: torch.Tensor | None
    state_places: torch.Tensor | None


class Join(nn.Module, ABC):
    """Brings a prompt's states into a student."""

    @abstractmethod
    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Change the arguments of the body.

        Raises:
            ValueError: the states are missing.
        """

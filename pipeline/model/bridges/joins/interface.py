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
        attention_mask: `[B, K]`, 1 for tokens and states so far, 0 for padding; None: all ones.
        past: key-value cache of the preceding tokens; extended in place.
        before_blocks: functions of the states before some blocks, by block number.
        leading: number of embeddings that precede those of tokens.
    """

    embeds: torch.Tensor
    attention_mask: torch.Tensor | None
    past: Cache | None
    before_blocks: dict[int, Callable[[torch.Tensor], torch.Tensor]] = field(default_factory=dict)
    leading: int = 0


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

    @property
    def cached_states(self) -> int:
        """Number of states that an earlier step put in the key-value cache.

        Raises:
            ValueError: there is no mask to tell.
        """
        if self.states_mask is None:
            raise ValueError("this student needs its prompts' states_mask at every step")
        return self.states_mask.shape[1]


class Join(nn.Module, ABC):
    """Brings a prompt's states into a student."""

    @abstractmethod
    def extend(self, inputs: BodyInputs, prompt: PromptInputs) -> None:
        """Change the arguments of the body.

        Raises:
            ValueError: the states are missing.
        """


def states_before(inputs: BodyInputs, prompt: PromptInputs, count: int) -> torch.Tensor:
    """Return the attention mask `[B, count + K]` of states that precede all tokens.

    Args:
        inputs: the tokens.
        prompt: the states.
        count: number of states.
    """
    rows = inputs.embeds.shape[0]
    tokens_BK = inputs.attention_mask
    if tokens_BK is None:
        seen = 0 if inputs.past is None else max(0, inputs.past.get_seq_length() - count)
        tokens_BK = inputs.embeds.new_ones(rows, seen + inputs.embeds.shape[1])
    states_BK = prompt.states_mask
    if states_BK is None:
        states_BK = tokens_BK.new_ones(rows, count)
    return torch.cat([states_BK.to(tokens_BK), tokens_BK], dim=1)

"""Does a student look at what it is given? Its loss when the states, the attention or the gates are
taken from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from pipeline.batches.examples import CachedExamples, Features
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.bridges.sequence import SequenceBridge


class OtherPrompts(CachedExamples):
    """The same answers, each with the states of another example's prompt."""

    def __init__(self, matched: CachedExamples) -> None:
        """Exchange the states; the examples must be more than one."""
        super().__init__(matched.cache, matched.layers)
        self._matched = matched
        self._other = _partners(matched.indices)

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example that the answer at each place is from."""
        return self._matched.indices

    @property
    def lengths(self) -> list[int]:
        """Tokens that the student reads at each place."""
        return self._matched.lengths

    def learned_bytes(self, place: int) -> int:
        """Bytes of the answer at a place."""
        return self._matched.learned_bytes(place)

    def at(self, place: int) -> Features:
        """The answer at a place, with the states that belong to the next one that is of another
        example."""
        own, states = self._matched.at(place), self._matched.at(self._other[place])
        return {
            name: states[name] if "." in name or name == "states_mask" else own[name]
            for name in own
        }


def _partners(indices: Sequence[int]) -> list[int]:
    """For each place the next one, in a circle, that is of another example."""
    partners, after = [0] * len(indices), 0
    for place in reversed(range(2 * len(indices))):  # the second time round is the circle
        here, following = place % len(indices), (place + 1) % len(indices)
        after = following if indices[following] != indices[here] else after
        partners[here] = after
    return partners


class _Changed(nn.Module, ABC):
    """In a decoder's place: decodes, and then changes the states `[B, K, D]`, `mask [B, K]` saying
    which are no padding."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with other `hidden_states`."""
        decoded: dict[str, torch.Tensor] = self.decoder(batch)
        mask_BK = decoded["states_mask" if "states_mask" in decoded else "attention_mask"]
        return decoded | {"hidden_states": self.changed(decoded["hidden_states"], mask_BK)}

    @abstractmethod
    def changed(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """The states in their place."""


class NoStates(_Changed):
    """Zeros in place of all states, or of those of one layer."""

    def __init__(self, decoder: nn.Module, layer: int | None = None, layers: int = 1) -> None:
        """Take all states away, or those of the layer at one of so many places side by side."""
        super().__init__(decoder)
        self._layer, self._layers = layer, layers

    def changed(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Zeros of the same shape."""
        if self._layer is None:
            return torch.zeros_like(hidden_BKD)
        parts = list(hidden_BKD.chunk(self._layers, dim=-1))
        parts[self._layer] = torch.zeros_like(parts[self._layer])
        return torch.cat(parts, dim=-1)


class ShuffledStates(_Changed):
    """The states of each example in a random order."""

    def changed(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """The same states, each at another token's place; padding stays."""
        chance = torch.Generator().manual_seed(0)
        places_BK = torch.arange(hidden_BKD.shape[1]).repeat(len(hidden_BKD), 1)
        for row, count in enumerate(mask_BK.sum(dim=1).tolist()):
            places_BK[row, :count] = torch.randperm(count, generator=chance)
        return hidden_BKD.gather(
            1, places_BK.to(hidden_BKD.device)[..., None].expand_as(hidden_BKD)
        )


class NextOfBatch(_Changed):
    """The states of the next example of the batch, from the start again where that is shorter."""

    def changed(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Another example's states; a batch of one keeps its own."""
        other_BKD = hidden_BKD.roll(-1, dims=0)
        counts_B = mask_BK.sum(dim=1).roll(-1, dims=0)
        places_BK = torch.arange(hidden_BKD.shape[1], device=hidden_BKD.device) % counts_B[:, None]
        return other_BKD.gather(1, places_BK[..., None].expand_as(other_BKD))


@contextmanager
def shut_gates(model: LLMModulesForCausalLM) -> Iterator[None]:
    """Cross-attention layers leave the states as they were."""
    with ExitStack() as stack:
        for layer in model.bridge.layers:
            handle = layer.register_forward_hook(lambda _layer, given, _output: given[0])
            stack.callback(handle.remove)
        yield


@contextmanager
def causal_attention(model: LLMModulesForCausalLM) -> Iterator[None]:
    """A student of the published code's attention sees, in the meantime, no later token than its
    own."""
    bridge = model.bridge
    assert isinstance(bridge, SequenceBridge)
    was, bridge.causal = bridge.causal, True
    try:
        yield
    finally:
        bridge.causal = was

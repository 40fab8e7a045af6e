"""Ablations: a student without its states, its attention or its gates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from pipeline.batches.examples import CachedExamples, Features
from pipeline.model import LLMModulesForCausalLM
from pipeline.model.bridges.sequence import SequenceBridge


class MismatchedPrompts(CachedExamples):
    """The same answers, each with the states of another example's prompt."""

    def __init__(self, matched: CachedExamples) -> None:
        """Exchange the states of at least two examples, the answers `matched` with their own."""
        super().__init__(matched.cache, matched.layers)
        self._matched = matched
        self._partners = _partners(matched.indices)

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example of the answer at each place."""
        return self._matched.indices

    @property
    def lengths(self) -> list[int]:
        """Number of tokens that the student reads at each place."""
        return self._matched.lengths

    def learned_bytes(self, place: int) -> int:
        """Return the length in bytes of the answer at a place."""
        return self._matched.learned_bytes(place)

    def at(self, place: int) -> Features:
        """Return the answer at a place with the states of the next answer to another example."""
        own, other = self._matched.at(place), self._matched.at(self._partners[place])
        states = {
            name: values for name, values in other.items() if "." in name or name == "states_mask"
        }
        exchanged = own | states
        if "state_places" in own:  # the other prompt may be shorter
            last = len(states["states_mask"]) - 1
            exchanged["state_places"] = own["state_places"].clamp(max=last)
        return exchanged


def _partners(indices: Sequence[int]) -> list[int]:
    """Return for each place the next one, cyclically, that belongs to another example."""
    partners, partner = [0] * len(indices), 0
    for place in reversed(range(2 * len(indices))):  # the second pass closes the cycle
        here, following = place % len(indices), (place + 1) % len(indices)
        partner = following if indices[following] != indices[here] else partner
        partners[here] = partner
    return partners


class _AblatedDecoder(nn.Module, ABC):
    """Decodes a batch, then replaces its states `[B, K, D]`; padding is 0 in `mask [B, K]`."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the decoded batch with replaced `hidden_states`."""
        decoded: dict[str, torch.Tensor] = self.decoder(batch)
        mask_BK = decoded["states_mask" if "states_mask" in decoded else "attention_mask"]
        return decoded | {"hidden_states": self.replace(decoded["hidden_states"], mask_BK)}

    @abstractmethod
    def replace(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Return the states that the student reads instead."""


class ZeroedStates(_AblatedDecoder):
    """Zeros instead of all states, or of those of one layer."""

    def __init__(self, decoder: nn.Module, layer: int | None = None, layers: int = 1) -> None:
        """Zero the `layer`-th of `layers` concatenated layers; None: all."""
        super().__init__(decoder)
        self._layer, self._layers = layer, layers

    def replace(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Return zeros of the same shape."""
        if self._layer is None:
            return torch.zeros_like(hidden_BKD)
        parts = list(hidden_BKD.chunk(self._layers, dim=-1))
        parts[self._layer] = torch.zeros_like(parts[self._layer])
        return torch.cat(parts, dim=-1)


class ShuffledStates(_AblatedDecoder):
    """The states of each example in random order."""

    def replace(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Return the states permuted along the tokens; padding stays in place."""
        generator = torch.Generator().manual_seed(0)
        places_BK = torch.arange(hidden_BKD.shape[1]).repeat(len(hidden_BKD), 1)
        for row, count in enumerate(mask_BK.sum(dim=1).tolist()):
            places_BK[row, :count] = torch.randperm(count, generator=generator)
        return hidden_BKD.gather(
            1, places_BK.to(hidden_BKD.device)[..., None].expand_as(hidden_BKD)
        )


class MismatchedStates(_AblatedDecoder):
    """The states of the next example of the batch, repeated cyclically if it is shorter."""

    def replace(self, hidden_BKD: torch.Tensor, mask_BK: torch.Tensor) -> torch.Tensor:
        """Return another example's states; a batch of one keeps its own."""
        other_BKD = hidden_BKD.roll(-1, dims=0)
        counts_B = mask_BK.sum(dim=1).roll(-1, dims=0)
        places_BK = torch.arange(hidden_BKD.shape[1], device=hidden_BKD.device) % counts_B[:, None]
        return other_BKD.gather(1, places_BK[..., None].expand_as(other_BKD))


@contextmanager
def shut_gates(model: LLMModulesForCausalLM) -> Iterator[None]:
    """Make cross-attention layers return the student's states unchanged."""
    with ExitStack() as stack:
        for layer in model.bridge.layers:
            handle = layer.register_forward_hook(lambda _layer, inputs, _output: inputs[0])
            stack.callback(handle.remove)
        yield


@contextmanager
def causal_attention(model: LLMModulesForCausalLM) -> Iterator[None]:
    """Make the cross-attention of a bidirectional student causal."""
    bridge = model.bridge
    assert isinstance(bridge, SequenceBridge)
    was, bridge.causal = bridge.causal, True
    try:
        yield
    finally:
        bridge.causal = was

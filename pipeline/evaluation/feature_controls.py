"""Does a student look at what it is given? Its loss with the states of other prompts, and with none."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.batches.features import CachedExamples, Features


class OtherPrompts(CachedExamples):
    """The same answers, each with the states of another example's prompt."""

    def __init__(self, matched: CachedExamples) -> None:
        """Exchange the states; the examples must be more than one."""
        super().__init__(matched.cache, matched.layers)
        self._matched = matched

    @property
    def indices(self) -> list[int]:
        """Index in the cache of the example that the answer at each place is from."""
        return self._matched.indices

    @property
    def lengths(self) -> list[int]:
        """Tokens that the student reads at each place."""
        return self._matched.lengths

    def at(self, place: int) -> Features:
        """The answer at a place, with the states that belong to the next one that is of another example."""
        indices = self.indices
        places = [(place + step) % len(indices) for step in range(1, len(indices))]
        other = next(each for each in places if indices[each] != indices[place])
        own, states = self._matched.at(place), self._matched.at(other)
        return {name: states[name] if "." in name or name == "states_mask" else own[name] for name in own}


class NoStates(nn.Module):
    """In a decoder's place: decodes, and gives zeros of the same shape."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with `hidden_states` of zeros."""
        decoded: dict[str, torch.Tensor] = self.decoder(batch)
        return decoded | {"hidden_states": torch.zeros_like(decoded["hidden_states"])}

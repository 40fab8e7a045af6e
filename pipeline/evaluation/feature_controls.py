"""Does a student look at what it is given? Its loss with the states of other prompts, and with none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pipeline.batches.features import CachedExamples, Features


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

    def at(self, place: int) -> Features:
        """The answer at a place, with the states that belong to the next one that is of another example."""
        own, states = self._matched.at(place), self._matched.at(self._other[place])
        return {name: states[name] if "." in name or name == "states_mask" else own[name] for name in own}


def _partners(indices: Sequence[int]) -> list[int]:
    """For each place the next one, in a circle, that is of another example."""
    partners, after = [0] * len(indices), 0
    for place in reversed(range(2 * len(indices))):  # the second time round is the circle
        here, following = place % len(indices), (place + 1) % len(indices)
        after = following if indices[following] != indices[here] else after
        partners[here] = after
    return partners


class NoStates(nn.Module):
    """In a decoder's place: decodes, and gives zeros of the same shape."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with `hidden_states` of zeros."""
        decoded: dict[str, torch.Tensor] = self.decoder(batch)
        return decoded | {"hidden_states": torch.zeros_like(decoded["hidden_states"])}

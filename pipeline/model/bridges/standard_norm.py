"""Normalisation of hidden states by their statistics over the training rows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import layer_norm

_LARGEST = 10.0
"""Standardised values are limited to this magnitude."""


class StandardNorm(nn.Module):
    """A LayerNorm per token, then each channel with mean 0 and deviation 1 over the data.

    In the middle of a teacher, a few channels are large for every token and say little; after a
    LayerNorm alone they still are. Mean and deviation are measured on training rows before
    training; until then they are 0 and 1.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    @torch.no_grad()
    def fit(self, states_ND: torch.Tensor) -> None:
        """Measure mean and deviation of a sample of hidden states."""
        normed_ND = layer_norm(states_ND.float(), (self.size,))
        self.mean.copy_(normed_ND.mean(dim=0))
        self.deviation.copy_(normed_ND.std(dim=0).clamp(min=1e-6))

    def forward(self, states_BKD: torch.Tensor) -> torch.Tensor:
        """Return states of the same shape; one of zeros, which stands for none, stays so."""
        normed_BKD = layer_norm(states_BKD, (self.size,))
        scaled_BKD = ((normed_BKD - self.mean) / self.deviation).clamp(-_LARGEST, _LARGEST)
        return scaled_BKD * (states_BKD != 0).any(dim=-1, keepdim=True)

"""A projection of hidden states to the student's width."""

from __future__ import annotations

import torch
from torch import nn


class Projection(nn.Module):
    """Two linear layers with a GELU between them; the second one starts at zero."""

    def __init__(self, size: int, output_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size, output_size)
        self.act = nn.GELU()
        self.output = Output(output_size, output_size)

    def forward(self, states_BKD: torch.Tensor) -> torch.Tensor:
        """Return states `[B, K, output_size]`."""
        projected: torch.Tensor = self.output(self.act(self.inner(states_BKD)))
        return projected


class Output(nn.Linear):
    """The last layer of a projection."""

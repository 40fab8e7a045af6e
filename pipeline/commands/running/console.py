"""The console for tables of results."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from rich.console import Console


def result_console(width: int = 150) -> Console:
    """Return stdout, as wide as its terminal, or `width` columns where it is none."""
    return Console(width=None if sys.stdout.isatty() else width)


def layer_weights(weights: Mapping[str, float]) -> str:
    """Return the weights of mixed layers as a text."""
    return ", ".join(f"{layer}: {weight:.2f}" for layer, weight in weights.items())

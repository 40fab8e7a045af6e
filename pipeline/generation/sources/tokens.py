"""`none` and `text`: the student reads no states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.data.conversations import Turn
from pipeline.generation.sources.interface import SourceOptions, StatesSource


class NoSource(StatesSource):
    """No states: for students that read tokens, or if nothing will be generated."""

    def __init__(self, options: SourceOptions | None = None) -> None:
        """Ignore the options."""

    def generate_arguments(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
        """Return no arguments."""
        return {}

    def forward_arguments(self, prompt: Sequence[Turn], ids_1T: torch.Tensor) -> dict[str, Any]:
        """Return no arguments."""
        return {}

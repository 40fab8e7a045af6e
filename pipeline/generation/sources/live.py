"""`sequence`: the live teacher reads every token with the student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.sources.interface import SourceOptions, StatesSource


class LiveSource(StatesSource):
    """A teacher in memory, with a new reader for each batch."""

    def __init__(self, options: SourceOptions) -> None:
        """Load the teacher.

        Raises:
            InputError: it cannot be loaded, or is an encoder.
        """
        self._teacher = options.load_teacher()
        self._layers, self._device = options.layers, options.device
        if not self._teacher.causal:
            raise InputError(
                f"{options.run}: its teacher is an encoder, whose states of the prompt change with"
                " each generated token: this student cannot generate; evaluate it with --samples 0"
            )

    @property
    def context(self) -> int | None:
        """Maximum tokens that the teacher reads."""
        return self._teacher.context_length

    def generate_arguments(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
        """Return a reader."""
        return {"reader": self._reader()}

    def forward_arguments(self, prompt: Sequence[Turn], ids_1T: torch.Tensor) -> dict[str, Any]:
        """Return the states of all tokens."""
        return {"hidden_states": self._reader().read(ids_1T, None, 0)}

    def _reader(self) -> LiveTeacher:
        return LiveTeacher(self._teacher, self._layers, self._device)

"""`prompt`: states of whole prompts, from a cache or from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.data.conversations import Turn
from pipeline.data.tokens import tokenize_prompt
from pipeline.generation.prompt_states import PromptStates
from pipeline.generation.sources.interface import SourceOptions, StatesSource


class PromptSource(StatesSource):
    """States of prompts; the teacher is loaded if the cache lacks a prompt."""

    def __init__(self, options: SourceOptions) -> None:
        self._template, self._tokenizer = options.template, options.teachers_tokenizer
        self._device = options.device
        self._states = PromptStates(
            options.layers,
            options.load_teacher,
            options.cache,
            keep_teacher=options.keep_teacher,
        )

    def generate_arguments(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
        """Return the states of the prompts, and their mask."""
        ids = [tokenize_prompt(turns, self._template, self._tokenizer) for turns in prompts]
        hidden_BKD, mask_BK = self._states.read(ids)
        return {
            "hidden_states": hidden_BKD.to(self._device),
            "states_mask": mask_BK.to(self._device),
        }

    def forward_arguments(self, prompt: Sequence[Turn], ids_1T: torch.Tensor) -> dict[str, Any]:
        """Return the states of the prompt."""
        return self.generate_arguments([prompt])

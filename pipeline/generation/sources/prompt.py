"""`prompt`: states of whole prompts, from a cache or from the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from pipeline.data.alignment import TeacherReading, align_prompt
from pipeline.data.conversations import Turn
from pipeline.generation.prompt_states import PromptStates
from pipeline.generation.sources.interface import SourceOptions, StatesSource


class PromptSource(StatesSource):
    """States of prompts; the teacher is loaded if the cache lacks a prompt."""

    def __init__(self, options: SourceOptions) -> None:
        self._teacher = TeacherReading(options.template, options.teachers_tokenizer)
        self._tokenizer = options.tokenizer if options.aligned else None
        self._device = options.device
        self._states = PromptStates(
            options.layers,
            options.load_teacher,
            options.cache,
            keep_teacher=options.keep_teacher,
        )

    def generate_arguments(self, prompts: Sequence[Sequence[Turn]]) -> dict[str, Any]:
        """Return the states of the prompts, their mask, and with `--join add` their places.

        Places `[B, T]` are padded on the left, as the student's tokens are.
        """
        read = [self._teacher.locate(turns) for turns in prompts]
        hidden_BKD, mask_BK = self._states.read([located.ids for located in read])
        arguments = {
            "hidden_states": hidden_BKD.to(self._device),
            "states_mask": mask_BK.to(self._device),
        }
        if self._tokenizer is None:
            return arguments
        places = [
            align_prompt(turns, self._teacher, located, self._tokenizer).places
            for turns, located in zip(prompts, read, strict=True)
        ]
        longest = max(map(len, places))
        padded = [[-1] * (longest - len(row)) + row for row in places]
        return arguments | {"state_places": torch.tensor(padded, device=self._device)}

    def forward_arguments(self, prompt: Sequence[Turn], ids_1T: torch.Tensor) -> dict[str, Any]:
        """Return the states of the prompt; tokens of the answer have no place."""
        arguments = self.generate_arguments([prompt])
        if (places := arguments.get("state_places")) is not None:
            answer = ids_1T.shape[1] - places.shape[1]
            arguments["state_places"] = pad(places, (0, answer), value=-1)
        return arguments

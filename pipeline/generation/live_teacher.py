"""The teacher at work while a student writes: one forward pass a token, thanks to its key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from pipeline.teacher.model import Teacher


class LiveTeacher:
    """Reads tokens for one generation, a few at a time; a `HiddenStatesReader` of the model room."""

    def __init__(self, teacher: Teacher, layers: Sequence[int], device: torch.device) -> None:
        """Begin a generation: nothing has been read yet. States of `layers`, side by side, are handed out on `device`."""
        self._teacher, self._layers, self._device = teacher, list(layers), device
        self._past = DynamicCache()

    def read(self, input_ids_BT: torch.Tensor, attention_mask_BK: torch.Tensor | None) -> torch.Tensor:
        """Hidden states `[B, T, layers * d_teacher]` of the next tokens."""
        mask_BK = None if attention_mask_BK is None else attention_mask_BK.to(self._teacher.device)
        states = self._teacher.hidden_states(input_ids_BT.to(self._teacher.device), mask_BK, self._past)
        # The student learned from states that were rounded to bfloat16 in the cache. Clone: leave inference mode.
        return torch.cat([states[layer] for layer in self._layers], dim=-1).to(self._device, torch.bfloat16).clone()

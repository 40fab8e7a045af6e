"""The teacher at work while a student writes: one forward pass a token, thanks to its key-value cache."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from pipeline.teacher.model import Teacher


class LiveTeacher:
    """Reads tokens for one generation, a few at a time; a `HiddenStatesReader` of the model room."""

    def __init__(self, teacher: Teacher, layer: int, device: torch.device) -> None:
        """Begin a generation: nothing has been read yet. States of `layer` are handed out on `device`."""
        self._teacher, self._layer, self._device = teacher, layer, device
        self._past = DynamicCache()

    def read(self, input_ids_BT: torch.Tensor, attention_mask_BK: torch.Tensor | None) -> torch.Tensor:
        """Hidden states `[B, T, d_teacher]` of the next tokens."""
        mask_BK = None if attention_mask_BK is None else attention_mask_BK.to(self._teacher.device)
        states = self._teacher.hidden_states(input_ids_BT.to(self._teacher.device), mask_BK, self._past)
        # The student learned from states that were rounded to bfloat16 in the cache. Clone: leave inference mode.
        return states[self._layer].to(self._device, torch.bfloat16).clone()

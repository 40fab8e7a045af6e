"""The teacher at work while a student writes: one forward pass a token, thanks to its key-value
cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from pipeline.teacher.model import Teacher


class LiveTeacher:
    """Reads what has been written so far, the new tokens alone; a `HiddenStatesReader` of the model
    room.

    Its rows follow those that it is given: a beam search may drop, double and exchange them.
    """

    _ids: torch.Tensor
    _states: list[torch.Tensor]
    _past: DynamicCache

    def __init__(self, teacher: Teacher, layers: Sequence[int], device: torch.device) -> None:
        """Begin a generation: nothing has been read yet. States of `layers`, side by side, are
        handed out on `device`."""
        self._teacher, self._layers, self._device = teacher, list(layers), device
        self._start_anew()

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        """Hidden states `[B, K - first, layers * d_teacher]` of the tokens so far from the one
        numbered `first` on."""
        ids_BK = input_ids_BK.to(self._teacher.device)
        self._follow(ids_BK)
        known = self._ids.shape[1]
        if known < ids_BK.shape[1]:
            mask_BK = (
                None if attention_mask_BK is None else attention_mask_BK.to(self._teacher.device)
            )
            if self._teacher.continues_from_kv:
                found = self._teacher.hidden_states(ids_BK[:, known:], mask_BK, self._past)
            else:  # all once more: dearer with each token, and right
                whole = self._teacher.hidden_states(ids_BK, mask_BK)
                found = {layer: states_BTD[:, known:] for layer, states_BTD in whole.items()}
            # The student learned from states that were rounded to bfloat16 in the cache. Clone:
            # leave inference mode.
            states = (
                torch.cat([found[layer] for layer in self._layers], dim=-1)
                .to(self._device, torch.bfloat16)
                .clone()
            )
            self._states.append(states)
            self._ids = ids_BK
            if first == known:
                return states
        return torch.cat(self._states, dim=1)[:, first:]

    def _start_anew(self) -> None:
        self._ids, self._states = torch.empty(0, 0, dtype=torch.long), []
        self._past = DynamicCache()

    def _follow(self, ids_BK: torch.Tensor) -> None:
        """Put the rows that were read in the order of those that are given; forget all where they
        do not go on from these."""
        known = self._ids.shape[1]
        if not known:
            return
        if known <= ids_BK.shape[1]:
            begun_BK = ids_BK[:, :known]
            if torch.equal(begun_BK, self._ids):
                return
            same_BB = (begun_BK[:, None] == self._ids[None]).all(dim=-1)
            if bool(same_BB.any(dim=1).all()):
                rows_B = same_BB.int().argmax(dim=1)
                self._past.reorder_cache(rows_B)  # type: ignore[arg-type]  # they are long
                self._states = [torch.cat(self._states, dim=1)[rows_B.to(self._device)]]
                self._ids = self._ids[rows_B]
                return
        self._start_anew()

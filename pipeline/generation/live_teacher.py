"""The teacher during generation: one forward pass per token, with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from pipeline.teacher.model import Teacher


class LiveTeacher:
    """A `HiddenStatesReader` that reads the new tokens of a generation with a teacher.

    Its rows follow those of its input: a beam search may drop, duplicate and reorder them.
    """

    _ids: torch.Tensor
    _states: list[torch.Tensor]
    _past: DynamicCache

    def __init__(self, teacher: Teacher, layers: Sequence[int], device: torch.device) -> None:
        """Start a generation.

        Args:
            teacher: computes the states.
            layers: in the order in which their states are concatenated.
            device: of the states that `read` returns.
        """
        self._teacher, self._layers, self._device = teacher, list(layers), device
        self._reset()

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        """Return hidden states `[B, K - first, layers * d_teacher]` from token `first` on."""
        ids_BK = input_ids_BK.to(self._teacher.device)
        self._follow(ids_BK)
        seen = self._ids.shape[1]
        if seen < ids_BK.shape[1]:
            mask_BK = (
                None if attention_mask_BK is None else attention_mask_BK.to(self._teacher.device)
            )
            if self._teacher.continues_from_kv:
                new = self._teacher.hidden_states(
                    ids_BK[:, seen:], mask_BK, self._past, self._layers
                )
            else:  # without a key-value cache the cost per token grows
                whole = self._teacher.hidden_states(ids_BK, mask_BK, layers=self._layers)
                new = {layer: states_BTD[:, seen:] for layer, states_BTD in whole.items()}
            # bfloat16, as in the cache that the student was trained from; cloned out of inference
            # mode
            states = (
                torch.cat([new[layer] for layer in self._layers], dim=-1)
                .to(self._device, torch.bfloat16)
                .clone()
            )
            self._states.append(states)
            self._ids = ids_BK
            if first == seen:
                return states
        return torch.cat(self._states, dim=1)[:, first:]

    def _reset(self) -> None:
        self._ids, self._states = torch.empty(0, 0, dtype=torch.long), []
        self._past = DynamicCache()

    def _follow(self, ids_BK: torch.Tensor) -> None:
        """Reorder the rows read so far like the input's; reset if it does not extend them."""
        seen = self._ids.shape[1]
        if not seen:
            return
        if seen <= ids_BK.shape[1]:
            prefix_BK = ids_BK[:, :seen]
            if torch.equal(prefix_BK, self._ids):
                return
            same_BB = (prefix_BK[:, None] == self._ids[None]).all(dim=-1)
            if bool(same_BB.any(dim=1).all()):
                rows_B = same_BB.int().argmax(dim=1)
                self._past.reorder_cache(rows_B)  # type: ignore[arg-type]  # int64, as it needs
                self._states = [torch.cat(self._states, dim=1)[rows_B.to(self._device)]]
                self._ids = self._ids[rows_B]
                return
        self._reset()

"""The teacher's states of whole prompts, for a student that needs them once: from a cache that has
them, or from the teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from cache import Cache
from pipeline.errors import InputError
from pipeline.teacher.model import Teacher


class PromptStates:
    """Looks into a cache first; the teacher is loaded when a prompt is not there, and can be let go
    of once it has read."""

    def __init__(
        self,
        layers: Sequence[int],
        load: Callable[[], Teacher],
        cache: Cache | None = None,
        *,
        keep_teacher: bool = True,
    ) -> None:
        """Hand out states of `layers`, side by side.

        Args:
            layers: of the teacher.
            load: loads it.
            cache: of prompts; one of whole examples is not looked into.
            keep_teacher: keep it in memory for what will be asked next.
        """
        self._layers, self._load, self._keep = list(layers), load, keep_teacher
        self._teacher: Teacher | None = None
        self._cache = (
            cache if cache is not None and cache.identity.get("condition") == "prompt" else None
        )
        self._of_length: dict[int, list[int]] = defaultdict(list)
        for index, length in enumerate(
            self._cache.lengths.tolist() if self._cache is not None else ()
        ):
            self._of_length[length].append(index)

    def read(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """States `[B, K, layers * d_teacher]` bfloat16 of prompts of teacher tokens, and their mask
        `[B, K]`, 0 for padding.

        Raises:
            InputError: the teacher is needed, and not to be had, or a prompt is longer than it
                reads.
            DamagedCacheError: the cache is damaged.
        """
        found = [self._cached(ids) for ids in prompts]
        missing = [ids for ids, states in zip(prompts, found, strict=True) if states is None]
        read = iter(self._read_live(missing) if missing else ())
        states = [next(read) if each is None else each for each in found]
        mask = [torch.ones(len(each), dtype=torch.long) for each in states]
        return pad_sequence(states, batch_first=True), pad_sequence(mask, batch_first=True)

    def _cached(self, ids: list[int]) -> torch.Tensor | None:
        for index in self._of_length[len(ids)]:
            assert self._cache is not None
            if self._cache.example(index, ()).input_ids.tolist() == ids:
                example = self._cache.example(index, self._layers)
                bits = [
                    torch.from_numpy(example.hidden_states[layer].view("uint16"))
                    for layer in self._layers
                ]
                return torch.cat([each.view(torch.bfloat16) for each in bits], dim=-1)
        return None

    def _read_live(self, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
        teacher = self._teacher = self._teacher or self._load()
        longest = max(map(len, prompts))
        if teacher.context_length is not None and longest > teacher.context_length:
            raise InputError(
                f"the prompt has {longest} tokens, the teacher reads {teacher.context_length}; ask"
                " something shorter"
            )
        if (most := max(map(max, prompts))) >= teacher.vocab_size:
            raise InputError(
                f"the prompt has token {most}, and the teacher has embeddings for"
                f" {teacher.vocab_size} alone; leave it out"
            )
        ids_BK = pad_sequence([torch.tensor(ids) for ids in prompts], batch_first=True).to(
            teacher.device
        )
        mask_BK = pad_sequence(
            [torch.ones(len(ids), dtype=torch.long) for ids in prompts], batch_first=True
        ).to(teacher.device)
        states = teacher.hidden_states(ids_BK, mask_BK)
        # The student learned from states that were rounded to bfloat16 in the cache. Clone: leave
        # inference mode.
        whole_BKD = (
            torch.cat([states[layer] for layer in self._layers], dim=-1)
            .to("cpu", torch.bfloat16)
            .clone()
        )
        if not self._keep:
            self._teacher = None
        return [row_KD[: len(ids)] for row_KD, ids in zip(whole_BKD, prompts, strict=True)]

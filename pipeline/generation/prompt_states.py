"""Teacher states of whole prompts: from a cache that has them, or from the teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from cache import Cache
from pipeline.conditions.cached import cached_part_of
from pipeline.errors import InputError
from pipeline.teacher.model import Teacher


class PromptStates:
    """Finds prompts in a cache, and loads the teacher if one is missing."""

    def __init__(
        self,
        layers: Sequence[int],
        load: Callable[[], Teacher],
        cache: Cache | None = None,
        *,
        keep_teacher: bool = True,
    ) -> None:
        """Index the prompts of the cache by length.

        Args:
            layers: of the teacher, in the order in which their states are concatenated.
            load: loads the teacher.
            cache: of prompts; one of whole examples is ignored.
            keep_teacher: keep the teacher in memory after reading.
        """
        self._layers, self._load, self._keep = list(layers), load, keep_teacher
        self._teacher: Teacher | None = None
        holds_prompts = cache is not None and not cached_part_of(cache.identity).is_whole
        self._cache = cache if holds_prompts else None
        self._indices_by_length: dict[int, list[int]] = defaultdict(list)
        lengths = [] if self._cache is None else self._cache.lengths.tolist()
        for index, length in enumerate(lengths):
            self._indices_by_length[length].append(index)

    def read(self, prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states of prompts in teacher tokens, and their mask `[B, K]`, 0 for padding.

        The states are `[B, K, layers * d_teacher]` bfloat16.

        Raises:
            InputError: the teacher cannot be loaded, or cannot read a prompt.
            DamagedCacheError: the cache is damaged.
        """
        cached = [self._cached(ids) for ids in prompts]
        missing = [ids for ids, states in zip(prompts, cached, strict=True) if states is None]
        live = iter(self._read_live(missing) if missing else ())
        rows = [next(live) if states is None else states for states in cached]
        masks = [torch.ones(len(states), dtype=torch.long) for states in rows]
        return pad_sequence(rows, batch_first=True), pad_sequence(masks, batch_first=True)

    def _cached(self, ids: list[int]) -> torch.Tensor | None:
        for index in self._indices_by_length[len(ids)]:
            assert self._cache is not None
            if self._cache.example(index, ()).input_ids.tolist() == ids:
                example = self._cache.example(index, self._layers)
                bits = [
                    torch.from_numpy(example.hidden_states[layer].view("uint16"))
                    for layer in self._layers
                ]
                return torch.cat([layer.view(torch.bfloat16) for layer in bits], dim=-1)
        return None

    def _read_live(self, prompts: Sequence[list[int]]) -> list[torch.Tensor]:
        teacher = self._teacher = self._teacher or self._load()
        _require_readable(prompts, teacher)
        ids_BK = pad_sequence([torch.tensor(ids) for ids in prompts], batch_first=True)
        mask_BK = pad_sequence(
            [torch.ones(len(ids), dtype=torch.long) for ids in prompts], batch_first=True
        )
        states = teacher.hidden_states(
            ids_BK.to(teacher.device), mask_BK.to(teacher.device), layers=self._layers
        )
        # bfloat16, as in the cache that the student was trained from; cloned out of inference mode
        whole_BKD = (
            torch.cat([states[layer] for layer in self._layers], dim=-1)
            .to("cpu", torch.bfloat16)
            .clone()
        )
        if not self._keep:
            self._teacher = None
        return [row_KD[: len(ids)] for row_KD, ids in zip(whole_BKD, prompts, strict=True)]


def _require_readable(prompts: Sequence[list[int]], teacher: Teacher) -> None:
    longest = max(map(len, prompts))
    if teacher.context_length is not None and longest > teacher.context_length:
        raise InputError(
            f"the prompt has {longest} tokens, the teacher reads {teacher.context_length};"
            " shorten it"
        )
    if (largest := max(map(max, prompts))) >= teacher.vocab_size:
        raise InputError(
            f"the prompt has token {largest}, but the teacher has only {teacher.vocab_size}"
            " embeddings; omit the token"
        )

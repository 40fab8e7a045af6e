"""Shared prefixes that texts continue: each is read alone, and its keys and values are kept."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from cache.shard.content import Segment
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.errors import InputError
from pipeline.extract.padded_batch import on_host
from pipeline.extract.sharing import SharingPlan
from pipeline.extract.token_run import TokenRun
from pipeline.teacher.model import Teacher
from pipeline.teacher.prefix_kv import EMPTY_PREFIX, PrefixKV, extend_prefix


class PrefixPass:
    """Reads prefixes, and keeps the keys and values of those read last."""

    def __init__(
        self, teacher: Teacher, examples: list[TokenizedExample], sharing: SharingPlan
    ) -> None:
        self._teacher, self._examples, self._sharing = teacher, examples, sharing
        self._kept: dict[int, PrefixKV] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    @property
    def kept_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return sum(map(len, self._kept.values()))

    def kv(self, number: int) -> PrefixKV:
        """Return the keys and values of a prefix; empty for -1."""
        return self._kept.get(number, EMPTY_PREFIX)

    def read(self, number: int) -> Segment:
        """Read a prefix, keep its keys and values, and return its segment."""
        run = TokenRun.of_prefix(number, self._examples, self._sharing)
        ids_BT = torch.from_numpy(run.ids.astype(np.int64))[None]
        states, self._kept[number] = extend_prefix(self._teacher, ids_BT, self.kv(run.after))
        return run.segment({layer: hidden[0] for layer, hidden in on_host(states).items()})

    def trim(self, most_tokens: int, needed: Collection[int] = ()) -> None:
        """Release prefixes, oldest first, down to `most_tokens`; keep those that are needed."""
        for number in [number for number in self._kept if number not in needed]:
            if self.kept_tokens <= most_tokens:
                break
            del self._kept[number]

    def clear(self) -> None:
        """Release all keys and values."""
        self._kept.clear()


def require_continuation(teacher: Teacher, sharing: SharingPlan) -> None:
    """Raise if prefixes are shared and the teacher cannot continue from keys and values.

    Raises:
        InputError: names the option to change.
    """
    if sharing.prefixes and not teacher.continues_from_kv:
        raise InputError(
            f"teacher {type(teacher.body).__name__}: cannot continue from keys and values; extract"
            " with --no-sharing"
        )

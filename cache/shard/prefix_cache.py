"""Shared prefixes as they are read again and again: kept in memory, still coded, up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates, concatenate
from cache.shard.content import NO_PREFIX
from cache.shard.prefixes import Prefixes

_HELD_BYTES = 64 << 20
"""Prefixes kept in memory in each process."""


@dataclass(frozen=True)
class CodedSegment:
    """Tokens with their loss mask and coded hidden states."""

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: dict[int, CodedStates]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def bytes(self) -> int:
        """What it takes in memory, the few tokens kept exactly aside."""
        return 5 * len(self) + sum(coded.values.nbytes for coded in self.hidden_states.values())


def joined(segments: Sequence[CodedSegment]) -> CodedSegment:
    """Segments that follow each other as one."""
    return CodedSegment(
        np.concatenate([segment.input_ids for segment in segments]),
        np.concatenate([segment.loss_mask for segment in segments]),
        {
            layer: concatenate([segment.hidden_states[layer] for segment in segments])
            for layer in segments[0].hidden_states
        },
    )


class PrefixCache:
    """Reads what comes before an example; the prefixes used last stay in memory."""

    def __init__(
        self, read_segment: Callable[[int, int, Sequence[int]], CodedSegment], prefixes: Prefixes
    ) -> None:
        """Read segments with `read_segment(record, segment, layers)`."""
        self._read_segment, self._prefixes = read_segment, prefixes
        self._held: OrderedDict[tuple[int, tuple[int, ...]], CodedSegment] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def read(self, number: int, layers: tuple[int, ...]) -> CodedSegment | None:
        """All that comes before a segment after the prefix of this number; None where nothing does.

        Raises:
            DamagedCacheError: it cannot be read.
        """
        if number == NO_PREFIX:
            return None
        key = number, layers
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        path = self._prefixes.path(number)
        whole = joined([self._read_segment(each.record, each.segment, layers) for each in path])
        with self._lock:
            if key not in self._held:  # another thread may have read it in the meantime
                self._held[key] = whole
                self._held_bytes += whole.bytes
            while self._held_bytes > _HELD_BYTES and len(self._held) > 1:
                self._held_bytes -= self._held.popitem(last=False)[1].bytes
        return whole

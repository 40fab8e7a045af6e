"""Shared prefixes as they are read again and again: kept in memory, still coded, up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates, concatenated
from cache.shard.content import NO_PREFIX
from cache.shard.prefixes import Prefixes

_HELD_BYTES = 64 << 20
"""Prefixes kept in memory in each process."""


@dataclass(frozen=True)
class CodedPiece:
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


def joined(pieces: Sequence[CodedPiece]) -> CodedPiece:
    """Pieces that follow each other as one."""
    return CodedPiece(
        np.concatenate([piece.input_ids for piece in pieces]),
        np.concatenate([piece.loss_mask for piece in pieces]),
        {
            layer: concatenated([piece.hidden_states[layer] for piece in pieces])
            for layer in pieces[0].hidden_states
        },
    )


class HeldPrefixes:
    """Reads what comes before an example; the prefixes used last stay in memory."""

    def __init__(
        self, read_piece: Callable[[int, int, Sequence[int]], CodedPiece], prefixes: Prefixes
    ) -> None:
        """Read pieces with `read_piece(record, piece, layers)`."""
        self._read_piece, self._prefixes = read_piece, prefixes
        self._held: OrderedDict[tuple[int, tuple[int, ...]], CodedPiece] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def read(self, number: int, layers: tuple[int, ...]) -> CodedPiece | None:
        """All that comes before a piece after the prefix of this number; None where nothing does.

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
        whole = joined([self._read_piece(each.record, each.piece, layers) for each in path])
        with self._lock:
            if key not in self._held:  # another thread may have read it in the meantime
                self._held[key] = whole
                self._held_bytes += whole.bytes
            while self._held_bytes > _HELD_BYTES and len(self._held) > 1:
                self._held_bytes -= self._held.popitem(last=False)[1].bytes
        return whole

"""Packing of coded states with a fixed size: one row per token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs.coded import CodedStates
from cache.codecs.interface import Readable, Segments


class RowPacking:
    """A packing with one row per token."""

    name: str
    attributes: Mapping[str, Any]

    @abstractmethod
    def spec(self, rows: int, hidden_size: int) -> ArraySpec:
        """Return shape and type of the stored array."""

    @abstractmethod
    def rows_of(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return coded states as stored rows."""

    @abstractmethod
    def coded_of(self, rows: npt.NDArray[Any]) -> CodedStates:
        """Return stored rows as coded states."""

    def require_packable(self, lengths: Sequence[int], channels: int) -> None:
        """Accept any lengths."""

    def pack(self, coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[Any]:
        """Return one row per token."""
        return self.rows_of(coded)

    def segments(
        self, stored: Readable, size: int, lengths: Sequence[int] | None, hidden_size: int
    ) -> Segments:
        """Return segments that are runs of rows."""
        return _RowSegments(self, stored, [size] if lengths is None else lengths)


class _RowSegments:
    def __init__(self, packing: RowPacking, stored: Readable, lengths: Sequence[int]) -> None:
        self._packing, self._stored = packing, stored
        self._starts = np.fromiter(accumulate(lengths, initial=0), np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def stored_range(self, segment: int) -> tuple[int, int]:
        return int(self._starts[segment]), int(self._starts[segment + 1])

    def release(self) -> None:
        """Do nothing: no memory is kept."""

    def read(self, segment: int) -> CodedStates:
        return self._packing.coded_of(self._stored.read(*self.stored_range(segment)))

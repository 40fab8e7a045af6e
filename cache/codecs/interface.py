"""The interface of codecs: code hidden states, and pack coded states into one array of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs.coded import CodedStates


class Readable(Protocol):
    """A stored array, read by ranges of its first dimension."""

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return items `start` to `stop`."""
        ...


class Segments(Protocol):
    """A layer's packed states in one shard, read segment by segment."""

    def __len__(self) -> int: ...

    def stored_range(self, segment: int) -> tuple[int, int]:
        """Return the start and end of a segment's items in the stored array."""
        ...

    def release(self) -> None:
        """Free memory that is not needed until the next segment is read."""
        ...

    def read(self, segment: int) -> CodedStates:
        """Return a segment's coded states.

        Raises:
            DamagedCacheError: the stored bytes cannot be this codec's.
        """
        ...


class Packing(Protocol):
    """The stored form of coded states: one array per layer, independent of the codec's fit."""

    @property
    def name(self) -> str:
        """The codec's name in manifests and on the command line."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes of the stored array, for users of other tools."""
        ...

    def spec(self, rows: int, hidden_size: int) -> ArraySpec | None:
        """Return shape and type of the stored array; None if its size depends on the values."""
        ...

    def require_packable(self, lengths: Sequence[int], channels: int) -> None:
        """Refuse segments that cannot be packed into one shard, given their lengths.

        Raises:
            CacheError: they are too many or too long.
        """
        ...

    def pack(self, coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[Any]:
        """Return the array to store, given coded states of segments of these lengths."""
        ...

    def segments(
        self, stored: Readable, size: int, lengths: Sequence[int] | None, hidden_size: int
    ) -> Segments:
        """Return the segments of a stored array.

        Args:
            stored: the array.
            size: of its first dimension.
            lengths: expected tokens of each segment; None to accept any.
            hidden_size: width of the hidden states.

        Raises:
            DamagedCacheError: it has other segments.
        """
        ...


class Codec(Protocol):
    """A codec of one layer of one cache, with its fit."""

    @property
    def name(self) -> str:
        """The codec's name in manifests and on the command line."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The codec requirement, and measurements on the calibration tokens."""
        ...

    @property
    def parameters(self) -> Mapping[str, npt.NDArray[Any]]:
        """Arrays of the fit; none for an exact codec."""
        ...

    @property
    def file(self) -> bytes | None:
        """Content of the file that the fit was read from, if any."""
        ...

    @property
    def value_type(self) -> str:
        """NumPy type name of the coded values."""
        ...

    def encode(self, hidden_ND: npt.NDArray[Any]) -> CodedStates:
        """Code hidden states `[N, d_teacher]` bfloat16, deterministically."""
        ...

    def decode(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return the states `[T, d_teacher]` bfloat16 of coded states."""
        ...

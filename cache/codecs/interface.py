"""What a codec can do: code hidden states, and pack what it coded into one array of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs.coded import CodedStates


class Readable(Protocol):
    """A stored array that is read by ranges of its first dimension."""

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Its items `start` to `stop`."""
        ...


class Segments(Protocol):
    """A layer's packed states in one shard, cut into the segments that are read one by one."""

    def __len__(self) -> int: ...

    def stored_range(self, segment: int) -> tuple[int, int]:
        """Which items of the stored array belong to a segment."""
        ...

    def release(self) -> None:
        """Give back memory that is not needed until the next segment is read."""
        ...

    def read(self, segment: int) -> CodedStates:
        """A segment's coded states.

        Raises:
            DamagedCacheError: what is stored cannot have been written by this codec.
        """
        ...


class Packing(Protocol):
    """How coded states lie in a shard: one array a layer. Depends on the codec's name alone, not on
    how it was fitted."""

    @property
    def name(self) -> str:
        """The codec's name in manifests and on the command line."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What the stored array says of itself to whoever opens it with another tool."""
        ...

    def spec(self, rows: int, hidden_size: int) -> ArraySpec | None:
        """Shape and type of the stored array; None where its size depends on the values."""
        ...

    def require_packable(self, lengths: Sequence[int], channels: int) -> None:
        """Refuse segments of lengths that cannot be packed into one shard.

        Raises:
            CacheError: they are too many or too long; says what is allowed.
        """
        ...

    def pack(self, coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[Any]:
        """Coded states of segments of these lengths as the array that is stored."""
        ...

    def segments(
        self, stored: Readable, size: int, lengths: Sequence[int] | None, hidden_size: int
    ) -> Segments:
        """The segments in a stored array whose first dimension is `size`; of the lengths that it
        tells of, where none are given.

        Raises:
            DamagedCacheError: it does not hold segments of these lengths.
        """
        ...


class Codec(Protocol):
    """A codec as one cache uses it for one layer: what it was fitted to is part of it."""

    @property
    def name(self) -> str:
        """The codec's name in manifests and on the command line."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked of the codec, and what it was found to do on the calibration tokens."""
        ...

    @property
    def parameters(self) -> Mapping[str, npt.NDArray[Any]]:
        """The arrays that it was fitted with; none for an exact codec."""
        ...

    @property
    def file(self) -> bytes | None:
        """The bytes of the file that the fit was read from; None where it was fitted just now, or
        to nothing."""
        ...

    @property
    def value_type(self) -> str:
        """NumPy name of the type of the coded values."""
        ...

    def encode(self, hidden_ND: npt.NDArray[Any]) -> CodedStates:
        """Code hidden states `[N, d_teacher]` bfloat16; the same numbers always give the same
        result."""
        ...

    def decode(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Coded states back to `[T, d_teacher]` bfloat16."""
        ...

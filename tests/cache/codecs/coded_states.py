"""Coded states and their pages, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.page_reader import PagedSegments

HEAD_BYTES = 8 * 4


VALUE_TYPES = ["int8", "int16"]


def make_coded(
    rows: int,
    channels: int,
    value_type: str = "int16",
    *,
    exact: Sequence[int] = (),
    seed: int = 0,
    spread: float = 20.0,
) -> CodedStates:
    """Return values whose spread falls from channel to channel, with some rows kept exactly."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(value_type)
    values = rng.normal(size=(rows, channels)) * spread / (1 + np.arange(channels))
    kept = np.array(sorted(exact), np.int64)
    states = rng.integers(0, 1 << 16, (len(kept), channels)).astype(np.uint16)
    return CodedStates(
        np.rint(values).clip(limits.min, limits.max).astype(value_type), None, kept, states
    )


def segments_in(
    packed: npt.NDArray[np.uint8], channels: int, lengths: Sequence[int] | None = None
) -> PagedSegments:
    return PagedSegments(InMemoryArray(packed), len(packed), channels, lengths)


def require_same(read: CodedStates, expected: CodedStates) -> None:
    assert read.values.dtype == expected.values.dtype
    np.testing.assert_array_equal(read.values, expected.values)
    assert read.exact_rows is not None and read.exact_values is not None
    assert expected.exact_rows is not None and expected.exact_values is not None
    np.testing.assert_array_equal(read.exact_rows, expected.exact_rows)
    np.testing.assert_array_equal(read.exact_values, expected.exact_values)

"""Damaged pages are an error, never a crash, and allocate little memory."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codecs import CodedStates
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.page_reader import PagedSegments
from cache.codecs.pages import pack_pages
from cache.errors import DamagedCacheError
from tests.cache.codecs.coded_states import (
    HEAD_BYTES,
    VALUE_TYPES,
    make_coded,
    segments_in,
)


def read_damaged(
    packed: npt.NDArray[np.uint8], channels: int, lengths: list[int]
) -> list[CodedStates | None]:
    """Read segments that may be damaged; return None for those that raise `DamagedCacheError`."""
    try:
        segments = segments_in(packed, channels, lengths)
    except DamagedCacheError:
        return [None] * len(lengths)
    read: list[CodedStates | None] = []
    for segment, length in enumerate(lengths):
        try:
            coded = segments.read(segment)
        except DamagedCacheError:
            read.append(None)
            continue
        assert coded.values.shape == (length, channels)
        assert coded.exact_rows is not None and coded.exact_values is not None
        assert len(coded.exact_rows) == len(coded.exact_values) <= length
        assert all(0 <= row < length for row in coded.exact_rows)
        read.append(coded)
    return read


def same(left: CodedStates | None, right: CodedStates | None) -> bool:
    if left is None or right is None:
        return left is right
    pairs = [
        (left.values, right.values),
        (left.exact_rows, right.exact_rows),
        (left.exact_values, right.exact_values),
    ]
    return all(np.array_equal(a, b) for a, b in pairs if a is not None and b is not None)


@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_a_flipped_byte_of_head_index_or_exact_states_never_goes_unnoticed(
    value_type: str,
) -> None:
    rng, lengths, channels = random.Random(value_type), [5, 0, 13, 2], 18
    packed = pack_pages(make_coded(20, channels, value_type, exact=[0, 7, 19]), lengths)
    original = read_damaged(packed, channels, lengths)
    ranges = [segments_in(packed, channels, lengths).stored_range(i) for i in range(4)]
    reserved, groups = range(24, 32), 2
    index_end = HEAD_BYTES + 4 * len(lengths) * (2 + groups)
    exact = [
        stop - place
        for start, stop in ranges
        if start < stop
        for place in range(1, 5 + 2 * channels)
    ]
    for place in [*range(index_end), *exact]:
        broken = packed.copy()
        broken[place] ^= rng.randrange(1, 256)
        read = read_damaged(broken, channels, lengths)
        assert all(map(same, read, original)) == (place in reserved)


@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_a_flipped_byte_of_a_segment_does_not_affect_other_segments(
    value_type: str,
) -> None:
    rng, lengths, channels = random.Random(value_type), [5, 0, 13, 2], 18
    packed = pack_pages(make_coded(20, channels, value_type, exact=[0, 7, 19]), lengths)
    original, outcomes = read_damaged(packed, channels, lengths), set()
    segments = segments_in(packed, channels, lengths)
    for damaged in range(len(lengths)):
        for place in range(*segments.stored_range(damaged)):
            broken = packed.copy()
            broken[place] ^= rng.randrange(1, 256)
            read = read_damaged(broken, channels, lengths)
            outcomes.add("refused" if read[damaged] is None else "read")
            assert all(
                same(read[segment], original[segment])
                for segment in range(len(lengths))
                if segment != damaged
            )
    assert outcomes == {"refused", "read"}  # the latter is left to checksums


@given(data=st.data())
@settings(deadline=None)
def test_many_flipped_bytes_raise_only_damage_errors(data: st.DataObject) -> None:
    lengths = [30, 4]
    packed = pack_pages(make_coded(34, 17, exact=[2]), lengths).copy()
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=8)):
        packed[place] = data.draw(st.integers(0, 255))
    read_damaged(packed, 17, lengths)


def test_truncated_and_extended_bytes_are_refused() -> None:
    lengths = [6, 3]
    packed = pack_pages(make_coded(9, 17, exact=[8]), lengths)
    for size in range(len(packed)):
        with pytest.raises(DamagedCacheError):
            segments_in(packed[:size], 17, lengths)
    with pytest.raises(DamagedCacheError):
        segments_in(np.concatenate([packed, packed[:1]]), 17, lengths)


@pytest.mark.parametrize("item", range(5))
def test_huge_numbers_in_the_head_are_refused(item: int) -> None:
    packed = pack_pages(make_coded(9, 17), [6, 3]).copy()
    packed[: 8 * 4].view("<u4")[item] = 0xFFFFFFFF
    with pytest.raises(DamagedCacheError):
        read_without_expected_lengths(packed, 17)


@pytest.mark.parametrize("tokens", [7, 60_000, 1 << 24, 0xFFFFFFFF])
def test_an_index_with_too_many_tokens_is_refused_without_expected_lengths(
    tokens: int,
) -> None:
    """As in the Zarr codec, which has no journal to compare the index with."""
    packed = pack_pages(make_coded(9, 17), [6, 3]).copy()
    packed[HEAD_BYTES:][:4].view("<u4")[0] = tokens
    with pytest.raises(DamagedCacheError):
        read_without_expected_lengths(packed, 17)


def read_without_expected_lengths(packed: npt.NDArray[np.uint8], channels: int) -> None:
    segments = segments_in(packed, channels)
    for segment in range(len(segments)):
        segments.read(segment)


def test_unexpected_lengths_and_widths_are_refused() -> None:
    packed = pack_pages(make_coded(9, 17), [6, 3])
    for channels, lengths in [(16, [6, 3]), (18, [6, 3]), (17, [3, 6]), (17, [9]), (17, [6, 3, 0])]:
        with pytest.raises(DamagedCacheError, match="other tokens or channels than the journal"):
            segments_in(packed, channels, lengths)


def test_exact_rows_out_of_order_are_refused() -> None:
    coded = make_coded(9, 17, exact=[2, 5])
    assert coded.exact_rows is not None
    for rows in ([5, 2], [5, 5], [5, 9]):
        packed = pack_pages(coded, [9]).copy()
        start = len(packed) - 2 * (4 + 2 * 17)
        packed[start : start + 8] = np.array(rows, "<u4").view(np.uint8)
        with pytest.raises(DamagedCacheError, match="not in order"):
            segments_in(packed, 17, [9]).read(0)


def test_a_few_bytes_never_allocate_gigabytes() -> None:
    head = np.array([1, 1, 4096, 16, 1, 0, 0, 0, 1 << 17, 0, *[0] * 256, *[0] * 256], "<u4")
    with pytest.raises(DamagedCacheError, match="more tokens than a shard or segment can have"):
        PagedSegments(InMemoryArray(head.view(np.uint8)), head.nbytes, 4096)

"""Entropy-coded pages are read back segment by segment."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codecs import CodedStates, concatenate, page_reader
from cache.codecs.pages import pack_pages, require_packable
from cache.errors import CacheError
from tests.cache.codecs.coded_states import (
    VALUE_TYPES,
    make_coded,
    require_same,
    segments_in,
)


@st.composite
def cut_states(draw: st.DrawFn) -> tuple[CodedStates, list[int]]:
    lengths = draw(
        st.lists(st.sampled_from([0, 1, 2, 7, 16, 33]) | st.integers(0, 40), min_size=1, max_size=6)
    )
    rows = sum(lengths)
    channels = draw(st.sampled_from([1, 15, 16, 17, 32, 40]) | st.integers(1, 50))
    exact = draw(st.sets(st.integers(0, rows - 1), max_size=5)) if rows else set()
    # from all zero to all at the type's limits
    spread = draw(st.sampled_from([0.0, 0.3, 5.0, 1e3, 1e6]))
    coded = make_coded(
        rows,
        channels,
        draw(st.sampled_from(VALUE_TYPES)),
        exact=[*exact],
        seed=draw(st.integers(0, 99)),
        spread=spread,
    )
    return coded, lengths


@given(cut=cut_states())
@settings(deadline=None)
def test_every_segment_is_read_alone_as_in_the_whole(
    cut: tuple[CodedStates, list[int]],
) -> None:
    coded, lengths = cut
    segments = segments_in(pack_pages(coded, lengths), coded.values.shape[1], lengths)
    assert (len(segments), segments.lengths.tolist()) == (len(lengths), lengths)
    read: dict[int, CodedStates] = {}
    for segment in reversed(range(len(lengths))):  # independent of earlier reads
        read[segment] = segments.read(segment)
        require_same(read[segment], coded.rows(sum(lengths[:segment]), sum(lengths[: segment + 1])))
    require_same(concatenate([read[segment] for segment in range(len(lengths))]), coded)


@given(cut=cut_states())
@settings(deadline=None, max_examples=30)
def test_packing_is_deterministic(cut: tuple[CodedStates, list[int]]) -> None:
    coded, lengths = cut
    copied = CodedStates(
        np.asfortranarray(coded.values),
        None,
        None if coded.exact_rows is None else coded.exact_rows.copy(),
        None if coded.exact_values is None else np.asfortranarray(coded.exact_values),
    )
    assert pack_pages(coded, lengths).tobytes() == pack_pages(copied, lengths).tobytes()


@given(cut=cut_states())
@settings(deadline=None, max_examples=30)
def test_the_segments_bytes_are_consecutive(
    cut: tuple[CodedStates, list[int]],
) -> None:
    coded, lengths = cut
    packed = pack_pages(coded, lengths)
    segments = segments_in(packed, coded.values.shape[1])
    ranges = [segments.stored_range(segment) for segment in range(len(lengths))]
    assert all(start <= stop for start, stop in ranges)
    assert [stop for _, stop in ranges] == [start for start, _ in ranges[1:]] + [len(packed)]


def test_constant_values_take_almost_no_space() -> None:
    coded = make_coded(4000, 32, spread=0.0)
    assert pack_pages(coded, [1000] * 4).nbytes < 1000


def test_a_segment_is_read_from_its_own_bytes_only() -> None:
    lengths = [9, 0, 21, 5]
    coded = make_coded(35, 20, exact=[3, 12, 34])
    packed = pack_pages(coded, lengths)
    whole = segments_in(packed, 20)
    for segment in range(len(lengths)):
        start, stop = whole.stored_range(segment)
        others_erased = packed.copy()
        others_erased[whole.stored_range(0)[0] : start] = 0xFF
        others_erased[stop:] = 0xFF
        require_same(segments_in(others_erased, 20, lengths).read(segment), whole.read(segment))


def test_more_rows_than_pcodec_allows_are_refused_with_a_remedy() -> None:
    rows = (1 << 20) + 1
    coded = CodedStates(
        np.broadcast_to(np.zeros(1, np.int8), (rows, 1)),
        None,
        np.zeros(0, np.int64),
        np.zeros((0, 1), np.uint16),
    )
    with pytest.raises(CacheError, match="use smaller --shard-tokens"):
        pack_pages(coded, [rows])
    with pytest.raises(CacheError, match="leave such examples out with --max-tokens"):
        require_packable([10, 1 << 19], 1024)
    require_packable([10, 1 << 18], 1024)


def test_decompressors_are_reused_until_released(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [5, 0, 9]
    segments = segments_in(pack_pages(make_coded(14, 20, "int8"), lengths), 20, lengths)
    opened: list[bytes] = []
    new = page_reader.FileDecompressor.new
    monkeypatch.setattr(
        page_reader,
        "FileDecompressor",
        SimpleNamespace(new=lambda header: (opened.append(header), new(header))[1]),
    )
    for _ in range(3):
        for segment in range(3):
            segments.read(segment)
    assert len(opened) == 1
    segments.release()
    segments.read(0)
    assert len(opened) == 2


def test_concurrent_threads_read_the_same_segments() -> None:
    lengths = [random.Random(segment).randrange(0, 300) for segment in range(24)]
    coded = make_coded(sum(lengths), 48, "int8", exact=range(0, sum(lengths), 97))
    segments = segments_in(pack_pages(coded, lengths), 48, lengths)
    starts = np.cumsum([0, *lengths])
    start = threading.Barrier(8)

    def read(seed: int) -> int:
        order = random.Random(seed).choices(range(len(lengths)), k=60)
        start.wait()
        for segment in order:
            require_same(
                segments.read(segment), coded.rows(int(starts[segment]), int(starts[segment + 1]))
            )
        return len(order)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(8))) == [60] * 8

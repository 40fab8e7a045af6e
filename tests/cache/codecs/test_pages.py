"""Pages are read back segment by segment; damage is an error, never a crash."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codecs import CodedStates, concatenate, page_reader
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.page_reader import PagedSegments
from cache.codecs.pages import pack_pages, require_packable
from cache.errors import CacheError, DamagedCacheError

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
    """Values whose spread falls from channel to channel, as a rotation's do; some rows kept
    exactly."""
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


def require_same(found: CodedStates, wanted: CodedStates) -> None:
    assert found.values.dtype == wanted.values.dtype
    np.testing.assert_array_equal(found.values, wanted.values)
    assert found.exact_rows is not None and found.exact_values is not None
    assert wanted.exact_rows is not None and wanted.exact_values is not None
    np.testing.assert_array_equal(found.exact_rows, wanted.exact_rows)
    np.testing.assert_array_equal(found.exact_values, wanted.exact_values)


@st.composite
def cut_states(draw: st.DrawFn) -> tuple[CodedStates, list[int]]:
    lengths = draw(
        st.lists(st.sampled_from([0, 1, 2, 7, 16, 33]) | st.integers(0, 40), min_size=1, max_size=6)
    )
    rows, channels = (
        sum(lengths),
        draw(st.sampled_from([1, 15, 16, 17, 32, 40]) | st.integers(1, 50)),
    )
    exact = draw(st.sets(st.integers(0, rows - 1), max_size=5)) if rows else set()
    spread = draw(
        st.sampled_from([0.0, 0.3, 5.0, 1e3, 1e6])
    )  # all zero, nearly all zero, … , all at the type's limits
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
def test_every_segment_comes_back_alone_as_it_stands_in_the_whole(
    cut: tuple[CodedStates, list[int]],
) -> None:
    coded, lengths = cut
    segments = segments_in(pack_pages(coded, lengths), coded.values.shape[1], lengths)
    assert (len(segments), segments.lengths.tolist()) == (len(lengths), lengths)
    read: dict[int, CodedStates] = {}
    for segment in reversed(range(len(lengths))):  # nothing depends on what was read before
        read[segment] = segments.read(segment)
        require_same(read[segment], coded.rows(sum(lengths[:segment]), sum(lengths[: segment + 1])))
    require_same(concatenate([read[segment] for segment in range(len(lengths))]), coded)


@given(cut=cut_states())
@settings(deadline=None, max_examples=30)
def test_packing_the_same_gives_the_same_bytes(cut: tuple[CodedStates, list[int]]) -> None:
    coded, lengths = cut
    elsewhere = CodedStates(
        np.asfortranarray(coded.values),
        None,
        None if coded.exact_rows is None else coded.exact_rows.copy(),
        None if coded.exact_values is None else np.asfortranarray(coded.exact_values),
    )
    assert pack_pages(coded, lengths).tobytes() == pack_pages(elsewhere, lengths).tobytes()


@given(cut=cut_states())
@settings(deadline=None, max_examples=30)
def test_the_bytes_of_the_segments_follow_each_other_to_the_end(
    cut: tuple[CodedStates, list[int]],
) -> None:
    coded, lengths = cut
    packed = pack_pages(coded, lengths)
    segments = segments_in(packed, coded.values.shape[1])
    ranges = [segments.stored_range(segment) for segment in range(len(lengths))]
    assert all(start <= stop for start, stop in ranges)
    assert [stop for _, stop in ranges] == [start for start, _ in ranges[1:]] + [len(packed)]


def test_values_of_no_spread_take_next_to_no_room() -> None:
    coded = make_coded(4000, 32, spread=0.0)
    assert pack_pages(coded, [1000] * 4).nbytes < 1000


def test_a_segment_is_read_from_its_own_bytes_alone() -> None:
    lengths = [9, 0, 21, 5]
    coded = make_coded(35, 20, exact=[3, 12, 34])
    packed = pack_pages(coded, lengths)
    whole = segments_in(packed, 20)
    for segment in range(len(lengths)):
        start, stop = whole.stored_range(segment)
        others_gone = packed.copy()
        others_gone[whole.stored_range(0)[0] : start] = 0xFF
        others_gone[stop:] = 0xFF
        require_same(segments_in(others_gone, 20, lengths).read(segment), whole.read(segment))


def read_each(
    packed: npt.NDArray[np.uint8], channels: int, lengths: list[int]
) -> list[CodedStates | None]:
    """Read what may be damaged, None where it is refused; nothing but `DamagedCacheError` may be
    raised, and values have the expected shape."""
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
def test_a_flipped_byte_of_head_index_or_exact_states_is_refused_or_changes_what_is_read(
    value_type: str,
) -> None:
    rng, lengths, channels = random.Random(value_type), [5, 0, 13, 2], 18
    packed = pack_pages(make_coded(20, channels, value_type, exact=[0, 7, 19]), lengths)
    original = read_each(packed, channels, lengths)
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
        read = read_each(broken, channels, lengths)
        assert all(map(same, read, original)) == (place in reserved)


@pytest.mark.parametrize("value_type", VALUE_TYPES)
def test_a_flipped_byte_of_a_segment_leaves_the_other_segments_as_they_were(
    value_type: str,
) -> None:
    rng, lengths, channels = random.Random(value_type), [5, 0, 13, 2], 18
    packed = pack_pages(make_coded(20, channels, value_type, exact=[0, 7, 19]), lengths)
    original, outcomes = read_each(packed, channels, lengths), set()
    segments = segments_in(packed, channels, lengths)
    for damaged in range(len(lengths)):
        for place in range(*segments.stored_range(damaged)):
            broken = packed.copy()
            broken[place] ^= rng.randrange(1, 256)
            read = read_each(broken, channels, lengths)
            outcomes.add("refused" if read[damaged] is None else "read")
            assert all(
                same(read[segment], original[segment])
                for segment in range(len(lengths))
                if segment != damaged
            )
    assert outcomes == {"refused", "read"}  # checksums, not pages, find the latter


@given(data=st.data())
@settings(deadline=None)
def test_many_flipped_bytes_raise_nothing_but_damage(data: st.DataObject) -> None:
    lengths = [30, 4]
    packed = pack_pages(make_coded(34, 17, exact=[2]), lengths).copy()
    for place in data.draw(st.lists(st.integers(0, len(packed) - 1), min_size=1, max_size=8)):
        packed[place] = data.draw(st.integers(0, 255))
    read_each(packed, 17, lengths)


def test_bytes_cut_anywhere_or_added_are_refused() -> None:
    lengths = [6, 3]
    packed = pack_pages(make_coded(9, 17, exact=[8]), lengths)
    for size in range(len(packed)):
        with pytest.raises(DamagedCacheError):
            segments_in(packed[:size], 17, lengths)
    with pytest.raises(DamagedCacheError):
        segments_in(np.concatenate([packed, packed[:1]]), 17, lengths)


@pytest.mark.parametrize("item", range(5))
def test_a_head_of_huge_numbers_makes_no_room_for_them(item: int) -> None:
    packed = pack_pages(make_coded(9, 17), [6, 3]).copy()
    packed[: 8 * 4].view("<u4")[item] = 0xFFFFFFFF
    with pytest.raises(DamagedCacheError):
        read_all_of_unknown_lengths(packed, 17)


@pytest.mark.parametrize("tokens", [7, 60_000, 1 << 24, 0xFFFFFFFF])
def test_an_index_of_too_many_tokens_is_told_also_where_the_lengths_are_not_known_before(
    tokens: int,
) -> None:
    """As in the Zarr codec, which has no journal to hold the index against."""
    packed = pack_pages(make_coded(9, 17), [6, 3]).copy()
    packed[HEAD_BYTES:][:4].view("<u4")[0] = tokens
    with pytest.raises(DamagedCacheError):
        read_all_of_unknown_lengths(packed, 17)


def read_all_of_unknown_lengths(packed: npt.NDArray[np.uint8], channels: int) -> None:
    segments = segments_in(packed, channels)
    for segment in range(len(segments)):
        segments.read(segment)


def test_segments_of_other_lengths_or_widths_are_refused() -> None:
    packed = pack_pages(make_coded(9, 17), [6, 3])
    for channels, lengths in [(16, [6, 3]), (18, [6, 3]), (17, [3, 6]), (17, [9]), (17, [6, 3, 0])]:
        with pytest.raises(DamagedCacheError, match="not of the tokens and channels"):
            segments_in(packed, channels, lengths)


def test_exact_rows_out_of_order_are_told() -> None:
    coded = make_coded(9, 17, exact=[2, 5])
    assert coded.exact_rows is not None
    for rows in ([5, 2], [5, 5], [5, 9]):
        packed = pack_pages(coded, [9]).copy()
        start = len(packed) - 2 * (4 + 2 * 17)
        packed[start : start + 8] = np.array(rows, "<u4").view(np.uint8)
        with pytest.raises(DamagedCacheError, match="not in order"):
            segments_in(packed, 17, [9]).read(0)


def test_more_rows_than_pcodec_takes_are_refused_with_a_way_out() -> None:
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


def test_one_reader_prepares_once_and_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_few_bytes_never_ask_for_gigabytes() -> None:
    head = np.array([1, 1, 4096, 16, 1, 0, 0, 0, 1 << 17, 0, *[0] * 256, *[0] * 256], "<u4")
    with pytest.raises(DamagedCacheError, match="more tokens than a shard or segment can have"):
        PagedSegments(InMemoryArray(head.view(np.uint8)), head.nbytes, 4096)


def test_threads_that_read_at_the_same_time_read_the_same() -> None:
    lengths = [random.Random(segment).randrange(0, 300) for segment in range(24)]
    coded = make_coded(sum(lengths), 48, "int8", exact=range(0, sum(lengths), 97))
    segments = segments_in(pack_pages(coded, lengths), 48, lengths)
    starts = np.cumsum([0, *lengths])
    together = threading.Barrier(8)

    def read(seed: int) -> int:
        order = random.Random(seed).choices(range(len(lengths)), k=60)
        together.wait()
        for segment in order:
            require_same(
                segments.read(segment), coded.rows(int(starts[segment]), int(starts[segment + 1]))
            )
        return len(order)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(8))) == [60] * 8

"""Entropy-coded integers in segments that are read one by one: the stored form of the `klt` codec.

One array of bytes a layer, all integers little-endian:

| part | holds |
| --- | --- |
| head | 8 uint32: layout version (1), segments, channels, channels of a group, bytes of a value, of the pcodec header, 0, 0 |
| index | uint32 `[segments, 2 + groups]`: tokens of the segment, tokens of it kept exactly, bytes of each group's page |
| tables | uint32 `[groups]` sizes, the pcodec header, then each group's pcodec chunk metadata |
| segments | of each: the groups' pages; tokens kept exactly, uint32 `[k]`; their states, bits of bfloat16 `[k, channels]` |

A page is a pcodec page (wrapped format, github.com/pcodec/pcodec docs/format.md) of one group's
int16 values, channel after
channel: neighbours in it have like spread, and one table for the whole shard serves all of a
group's pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec
from pcodec.wrapped import FileCompressor, FileDecompressor

from cache.codecs.coded import CodedStates
from cache.codecs.interface import Readable
from cache.errors import CacheError, DamagedCacheError

GROUP = 16
"""Neighbouring channels that share an entropy table."""
_MOST_ROWS = (1 << 24) // GROUP
"""Tokens of a shard: pcodec takes so many values in one chunk."""
_MOST_VALUES = 1 << 28
"""Values of a segment: what is read at once takes three bytes for each."""
_VERSION = 1
_HEAD = np.dtype("<u4")
_HEAD_ITEMS = 8
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int8), 2: np.dtype(np.int16)}


def pack_pages(coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Pack coded states of segments of these lengths into bytes.

    Args:
        coded: values of type int8 or int16; readers are given the same type.
        lengths: tokens of each segment.

    Raises:
        CacheError: as from `require_packable`.
    """
    _, channels = coded.values.shape
    require_packable(lengths, channels)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    filled = [segment for segment, length in enumerate(lengths) if length]
    tables, pages_of, header = [], [], FileCompressor().write_header()
    for first in range(0, channels, GROUP):
        group_ND = np.ascontiguousarray(coded.values[:, first : first + GROUP], np.int16)
        table, pages = _group(
            group_ND, [(int(starts[segment]), int(starts[segment + 1])) for segment in filled]
        )
        tables.append(table)
        pages_of.append(dict(zip(filled, pages, strict=True)))
    index, bodies = np.zeros((len(lengths), 2 + len(tables)), _HEAD), []
    for segment, length in enumerate(lengths):
        kept = coded.rows(int(starts[segment]), int(starts[segment + 1]))
        exact_rows = np.zeros(0, np.int64) if kept.exact_rows is None else kept.exact_rows
        pages = [of_segment.get(segment, b"") for of_segment in pages_of]
        index[segment] = [length, len(exact_rows), *map(len, pages)]
        bodies += pages
        if len(exact_rows):
            assert kept.exact_values is not None
            bodies += [
                exact_rows.astype("<u4").tobytes(),
                np.ascontiguousarray(kept.exact_values, "<u2").tobytes(),
            ]
    head = np.array(
        [_VERSION, len(lengths), channels, GROUP, coded.values.dtype.itemsize, len(header), 0, 0],
        _HEAD,
    )
    sizes = np.array(list(map(len, tables)), _HEAD)
    return np.frombuffer(
        b"".join([head.tobytes(), index.tobytes(), sizes.tobytes(), header, *tables, *bodies]),
        np.uint8,
    )


def require_packable(lengths: Sequence[int], channels: int) -> None:
    """Refuse, before any work, what cannot be packed.

    Raises:
        CacheError: the segments of these lengths have more tokens than pcodec takes in one chunk, or
            one of them more values than are to be read at once.
    """
    if sum(lengths) > _MOST_ROWS:
        raise CacheError(
            f"a shard of {sum(lengths):,} stored tokens is too large for klt (at most"
            f" {_MOST_ROWS:,}); use smaller --shard-tokens"
        )
    if (longest := max(lengths, default=0)) * channels > _MOST_VALUES:
        raise CacheError(
            f"{longest:,} tokens of {channels} values in one segment are too many for klt (at most"
            f" {_MOST_VALUES // channels:,}); leave such examples out with --max-tokens"
        )


def _group(
    group_ND: npt.NDArray[np.int16], ranges: Sequence[tuple[int, int]]
) -> tuple[bytes, list[bytes]]:
    """A group's entropy table, and the page of each range of rows."""
    if not ranges:
        return b"", []
    values = np.concatenate([group_ND[start:stop].T.reshape(-1) for start, stop in ranges])
    config = ChunkConfig(
        paging_spec=PagingSpec.exact_page_sizes(
            [(stop - start) * group_ND.shape[1] for start, stop in ranges]
        ),
        mode_spec=ModeSpec.classic(),
        # never a step from one token to another: a page is read by itself
        delta_spec=DeltaSpec.no_op(),
    )
    compressor = FileCompressor().chunk_compressor(values, config)
    return compressor.write_meta(), [compressor.write_page(page) for page in range(len(ranges))]


@dataclass(frozen=True)
class _Layout:
    """The parts before the segments, as they were read."""

    header: bytes
    tables: list[bytes]
    widths: list[int]
    index: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    channels: int
    value_type: np.dtype[Any]


class PagedSegments:
    """The segments in a packed array. Threads may read at the same time: decoding lets go of the
    interpreter's lock."""

    def __init__(
        self, stored: Readable, size: int, hidden_size: int, lengths: Sequence[int] | None = None
    ) -> None:
        """Read the parts before the segments.

        Args:
            stored: the packed bytes.
            size: how many they are.
            hidden_size: channels that they are to hold.
            lengths: tokens that the segments are to have; None: whatever they have.

        Raises:
            DamagedCacheError: they are not of this layout, or hold other segments.
        """
        self._stored = stored
        try:
            self._layout = _read_layout(stored, size)
        except ValueError as error:
            raise DamagedCacheError(f"not klt pages ({error})") from error
        found = self.lengths.tolist()
        if self._layout.channels != hidden_size or (lengths is not None and found != list(lengths)):
            raise DamagedCacheError(
                "its klt pages are not of the tokens and channels that the journal tells of"
            )
        self._idle: list[list[Any]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[segments]` tokens of each segment."""
        return self._layout.index[:, 0].astype(np.int64)

    def release(self) -> None:
        """Give back the memory of what has been prepared for decoding; it is prepared again with
        the next segment."""
        self._idle = []

    def stored_range(self, segment: int) -> tuple[int, int]:
        """Which bytes belong to a segment."""
        return int(self._layout.starts[segment]), int(self._layout.starts[segment + 1])

    def read(self, segment: int) -> CodedStates:
        """A segment's coded states.

        Raises:
            DamagedCacheError: its bytes are no pages of this shard's tables.
        """
        layout = self._layout
        rows, kept, *sizes = layout.index[segment].tolist()
        body = self._stored.read(*self.stored_range(segment)).tobytes()
        values_DT = np.empty((layout.channels, rows), np.int16)
        place, channel, idle = 0, 0, self._idle
        try:
            decompressors = self._lent() if rows else []
            for decompressor, width, size in zip(
                decompressors, layout.widths, sizes, strict=bool(rows)
            ):
                page = values_DT[channel : channel + width].reshape(-1)
                progress, read = decompressor.read_page_into(
                    body[place : place + size], rows * width, page
                )
                if read != size or progress.n_processed != rows * width:
                    raise ValueError("a page of another length")
                place, channel = place + size, channel + width
            if rows:
                idle.append(decompressors)  # let go of in the meantime, they go with the list
        except (RuntimeError, ValueError) as error:
            raise DamagedCacheError(f"damaged klt pages ({error})") from error
        values_TD = values_DT.T.astype(layout.value_type, order="C")
        exact_rows = np.frombuffer(body, "<u4", kept, place).astype(np.int64)
        exact = np.frombuffer(body, "<u2", kept * layout.channels, place + 4 * kept).reshape(
            kept, layout.channels
        )
        if kept and not (exact_rows[-1] < rows and (np.diff(exact_rows) > 0).all()):
            raise DamagedCacheError("damaged klt pages (tokens kept exactly are not in order)")
        return CodedStates(values_TD, None, exact_rows, exact)

    def _lent(self) -> list[Any]:
        """A decompressor for each group, of some 20 KB; they serve one thread at a time, so there
        are as many as threads meet."""
        try:
            return self._idle.pop()
        except IndexError:
            opened, _ = FileDecompressor.new(self._layout.header)
            return [opened.chunk_decompressor(table, "i16")[0] for table in self._layout.tables]


def _read_layout(stored: Readable, size: int) -> _Layout:
    """Nothing is believed, and no room made, before it is known to lie within the bytes that are
    there."""
    item = _HEAD.itemsize

    def items(place: int, count: int) -> npt.NDArray[np.uint32]:
        if place + count * item > size:
            raise ValueError("cut short")
        found: npt.NDArray[np.uint32] = np.ascontiguousarray(
            stored.read(place, place + count * item)
        ).view(_HEAD)
        return found

    version, segments, channels, group, value_bytes, header_size, *_ = items(
        0, _HEAD_ITEMS
    ).tolist()
    if version != _VERSION or not (channels and group and segments) or value_bytes not in _TYPES:
        raise ValueError(f"layout version {version}")
    place = _HEAD_ITEMS * item
    groups = -(-channels // group)
    index = items(place, segments * (2 + groups)).reshape(segments, 2 + groups)
    place += index.size * item
    sizes = items(place, groups).tolist()
    place += groups * item
    if place + header_size + sum(sizes) > size:
        raise ValueError("cut short")
    header = stored.read(place, place + header_size).tobytes()
    place += header_size
    tables = []
    for table in sizes:
        tables.append(stored.read(place, place + table).tobytes())
        place += table
    bodies = index[:, 2:].sum(axis=1, dtype=np.int64) + index[:, 1].astype(np.int64) * (
        4 + 2 * channels
    )
    starts = place + np.concatenate([[0], np.cumsum(bodies)])
    if starts[-1] != size:
        raise ValueError(f"{size} bytes, its index tells of {starts[-1]}")
    if (
        index[:, 0].sum(dtype=np.int64) > _MOST_ROWS
        or int(index[:, 0].max()) * channels > _MOST_VALUES
    ):
        raise ValueError("more tokens than a shard or segment can have")
    if (index[:, 1] > index[:, 0]).any():
        raise ValueError("more tokens kept exactly than there are")
    widths = [min(group, channels - first) for first in range(0, channels, group)]
    return _Layout(header, tables, widths, index, starts, channels, _TYPES[value_bytes])

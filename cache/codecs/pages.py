"""Packing integers into entropy-coded pages, the stored form of the `klt` codec.

`cache.codecs.page_layout` has the layout, `cache.codecs.page_reader` the reader.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pcodec import ChunkConfig, DeltaSpec, ModeSpec, PagingSpec
from pcodec.wrapped import FileCompressor

from cache.codecs.coded import CodedStates
from cache.codecs.page_layout import GROUP, ITEM, MAX_ROWS, MAX_VALUES, VERSION
from cache.errors import CacheError


def pack_pages(coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Pack the coded states of segments into bytes.

    Args:
        coded: values of type int8 or int16.
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
    index, bodies = np.zeros((len(lengths), 2 + len(tables)), ITEM), []
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
        [VERSION, len(lengths), channels, GROUP, coded.values.dtype.itemsize, len(header), 0, 0],
        ITEM,
    )
    sizes = np.array(list(map(len, tables)), ITEM)
    return np.frombuffer(
        b"".join([head.tobytes(), index.tobytes(), sizes.tobytes(), header, *tables, *bodies]),
        np.uint8,
    )


def require_packable(lengths: Sequence[int], channels: int) -> None:
    """Refuse segments that cannot be packed, given their lengths.

    Raises:
        CacheError: they have more tokens together than a pcodec chunk can hold, or one has more
            values than can be read at once.
    """
    if sum(lengths) > MAX_ROWS:
        raise CacheError(
            f"a shard of {sum(lengths):,} stored tokens is too large for klt (at most"
            f" {MAX_ROWS:,}); use smaller --shard-tokens"
        )
    if (longest := max(lengths, default=0)) * channels > MAX_VALUES:
        raise CacheError(
            f"a segment of {longest:,} tokens of {channels} values is too large for klt (at most"
            f" {MAX_VALUES // channels:,} tokens); leave such examples out with --max-tokens"
        )


def _group(
    group_ND: npt.NDArray[np.int16], ranges: Sequence[tuple[int, int]]
) -> tuple[bytes, list[bytes]]:
    """Return a group's entropy table, and the page of each range of rows."""
    if not ranges:
        return b"", []
    values = np.concatenate([group_ND[start:stop].T.reshape(-1) for start, stop in ranges])
    config = ChunkConfig(
        paging_spec=PagingSpec.exact_page_sizes(
            [(stop - start) * group_ND.shape[1] for start, stop in ranges]
        ),
        mode_spec=ModeSpec.classic(),
        # no differences between tokens: pages are read independently
        delta_spec=DeltaSpec.no_op(),
    )
    compressor = FileCompressor().chunk_compressor(values, config)
    return compressor.write_meta(), [compressor.write_page(page) for page in range(len(ranges))]

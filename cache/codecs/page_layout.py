"""The layout of packed pages: the parts of the stored array before the segments.

All integers are little-endian:

| part | content |
| --- | --- |
| head | uint32 `[8]`: version 1, segments, channels, group size, value bytes, header bytes, 0, 0 |
| index | uint32 `[segments, 2 + groups]`: tokens, exact tokens, bytes of each group's page |
| tables | uint32 `[groups]` sizes, the pcodec header, each group's pcodec chunk metadata |
| segments | the groups' pages; exact tokens, uint32 `[k]`; their states, bfloat16 `[k, channels]` |

A page is a pcodec page (wrapped format, github.com/pcodec/pcodec docs/format.md) of one group's
int16 values, channel after channel: adjacent values have similar spread, and one table per shard
serves all pages of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs.interface import Readable

GROUP = 16
"""Adjacent channels that share an entropy table."""
MAX_ROWS = (1 << 24) // GROUP
"""Maximum tokens of a shard, from the maximum values of a pcodec chunk."""
MAX_VALUES = 1 << 28
"""Maximum values of a segment; reading one takes three bytes of memory per value."""
VERSION = 1
ITEM = np.dtype("<u4")
_HEAD_ITEMS = 8
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.int8), 2: np.dtype(np.int16)}


@dataclass(frozen=True)
class PageLayout:
    """The parts of a stored array before its segments.

    Attributes:
        header: of the pcodec file.
        tables: pcodec chunk metadata of each group.
        widths: channels of each group.
        index: `[segments, 2 + groups]`, as above.
        starts: `[segments + 1]` byte offset of each segment, and of the end.
        channels: width of the states.
        value_type: type of the coded values.
    """

    header: bytes
    tables: list[bytes]
    widths: list[int]
    index: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    channels: int
    value_type: np.dtype[Any]


def read_layout(stored: Readable, size: int) -> PageLayout:
    """Read the parts before the segments; check each size before memory is allocated.

    Raises:
        ValueError: the `size` bytes have another layout.
    """
    item = ITEM.itemsize

    def items(place: int, count: int) -> npt.NDArray[np.uint32]:
        if place + count * item > size:
            raise ValueError("cut short")
        content = stored.read(place, place + count * item)
        numbers: npt.NDArray[np.uint32] = np.ascontiguousarray(content).view(ITEM)
        return numbers

    version, segments, channels, group, value_bytes, header_size, *_ = items(
        0, _HEAD_ITEMS
    ).tolist()
    if version != VERSION or not (channels and group and segments) or value_bytes not in _TYPES:
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
        raise ValueError(f"{size} bytes, not the {starts[-1]} of its index")
    if index[:, 0].sum(dtype=np.int64) > MAX_ROWS or int(index[:, 0].max()) * channels > MAX_VALUES:
        raise ValueError("more tokens than a shard or segment can have")
    if (index[:, 1] > index[:, 0]).any():
        raise ValueError("more tokens are kept exactly than there are")
    widths = [min(group, channels - first) for first in range(0, channels, group)]
    return PageLayout(header, tables, widths, index, starts, channels, _TYPES[value_bytes])

"""How a Zarr array is cut into chunks: inner chunks of equal size in one file."""

from __future__ import annotations

from cache.array_spec import ArraySpec

CHUNK_ROWS = 256
"""Rows of an inner chunk of a two-dimensional array: the smallest unit that other tools read."""
_CHUNK_ITEMS = 1 << 16
"""Items of an inner chunk of a one-dimensional array."""
INDEX_ENTRY_BYTES, INDEX_CHECKSUM_BYTES = 16, 4
"""Sizes in the chunk index at the end of each file: per chunk, and once."""


def chunking(spec: ArraySpec) -> tuple[int, int]:
    """Return the rows of an inner chunk, and the rows of all inner chunks together."""
    length = max(spec.shape[0], 1)
    rows = min(length, CHUNK_ROWS if len(spec.shape) == 2 else _CHUNK_ITEMS)
    return rows, -(-length // rows) * rows


def values_name(dimensions: int) -> str:
    """Return the name of an array's file of values, relative to the array."""
    return "/".join(["c", *("0" for _ in range(dimensions))])

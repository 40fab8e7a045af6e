"""A shard as a Zarr v3 group: each array one file, cut into inner chunks by the sharding codec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from cache.errors import DamagedCacheError
from cache.formats.interface import Arrays, Attributes, ShardArrays

CHUNK_ROWS = 256
"""Rows of an inner chunk of a two-dimensional array: the least that a read touches."""
_CHUNK_ITEMS = 1 << 16
"""Items of an inner chunk of a one-dimensional array."""


@dataclass(frozen=True)
class ZarrFormat:
    """Zarr v3 with the sharding codec, as zarr-python writes it; values are stored raw."""

    name: str = "zarr"
    suffix: str = ".zarr"

    def write(self, path: Path, arrays: Arrays, attributes: Attributes) -> None:
        """Write the arrays into a new group."""
        root = zarr.open_group(LocalStore(path), mode="w", zarr_format=3, attributes=dict(attributes.get("", {})))
        for name, values in arrays.items():
            rows = min(len(values), CHUNK_ROWS if values.ndim == 2 else _CHUNK_ITEMS) or 1
            chunks = (rows, *values.shape[1:])
            shards = (-(-max(len(values), 1) // rows) * rows, *values.shape[1:])
            array = root.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=chunks,
                shards=shards,
                compressors=None,
                attributes=dict(attributes.get(name, {})),
                config={"write_empty_chunks": True},
            )
            array[...] = values

    def open(self, path: Path) -> ShardArrays:
        """Open the group."""
        try:
            return _OpenZarr(path, zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedCacheError(f"{path}: not a Zarr group ({error})") from error


class _OpenZarr:
    def __init__(self, path: Path, group: zarr.Group) -> None:
        self._path, self._group = path, group
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            try:
                array = self._group[name]
            except (KeyError, OSError, ValueError, TypeError) as error:
                raise DamagedCacheError(f"{self._path}: array {name!r} is missing or damaged ({error})") from error
            if not isinstance(array, zarr.Array):
                raise DamagedCacheError(f"{self._path}: {name!r} is not an array")
            self._arrays[name] = array
        return self._arrays[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._array(name).shape)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._array(name)[start:stop])
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DamagedCacheError(f"{self._path}: array {name!r} cannot be read ({error})") from error

    def close(self) -> None:
        self._arrays.clear()

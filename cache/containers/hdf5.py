"""A shard as one HDF5 file with contiguous data sets."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.array_spec import ArraySpec
from cache.containers.interface import Arrays, Attributes, DecodedArray, StoredArray
from cache.errors import DamagedCacheError


@dataclass(frozen=True)
class Hdf5Container:
    """HDF5 written by h5py; contiguous, the fastest layout for reading whole examples."""

    name: str = "hdf5"
    suffix: str = ".h5"

    def write(
        self,
        path: Path,
        arrays: Arrays,
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> None:
        """Write the arrays into a new file; packed states are bytes described by attributes."""
        content = io.BytesIO()  # a full disk fails a plain write cleanly, HDF5 may crash on it
        _write(content, arrays, attributes)
        path.write_bytes(content.getbuffer())

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """Return the name of the one file."""
        return {name}

    def attributes(self, path: Path) -> dict[str, Any]:
        """Return the attributes of the file."""
        with _opened(path) as file:
            return dict(file.attrs)

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Return the locations of data sets; refuse chunked, virtual and external ones."""
        with _opened(path) as file:
            return {name: _locate(path, file, name) for name in names}

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> int:
        """Return the bytes of all values and of the file around them."""
        layout = tuple(
            (name, spec.dtype.str, len(spec.shape), bool(math.prod(spec.shape)))
            for name, spec in specs.items()
        )
        values = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values())
        return values + _overhead(layout, json.dumps(attributes))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except Exception as error:  # arbitrary bytes fail in arbitrary ways
        raise DamagedCacheError(
            f"{path}: damaged, or not an HDF5 file of this project ({error})"
        ) from error


def _write(target: io.BytesIO, arrays: Arrays, attributes: Attributes) -> None:
    # Without HDF5's free-space management the file's size depends only on its arrays' sizes.
    with h5py.File(target, "w", libver="v110", fs_strategy="none") as file:
        file.attrs.update(attributes.get("", {}))
        for name, values in arrays.items():
            file.create_dataset(name, data=values).attrs.update(attributes.get(name, {}))


def _locate(path: Path, file: h5py.File, name: str) -> StoredArray:
    array = file
    for part in name.split("/"):
        if not isinstance(array.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"array {name!r} is missing or a link")
        array = array[part]
    offset = None
    if isinstance(array, h5py.Dataset) and not (array.external or array.is_virtual):
        offset = array.id.get_offset() if array.size else 0
    if offset is None:
        raise ValueError(f"{name!r} is not an array of contiguous values in this file")
    return StoredArray(path, int(offset), ArraySpec(tuple(map(int, array.shape)), array.dtype))


@functools.lru_cache
def _overhead(layout: tuple[tuple[str, str, int, bool], ...], attributes: str) -> int:
    """Return the bytes of the file around the values, which do not depend on their number."""
    arrays = {
        name: np.ones((int(filled),) * dimensions, dtype)
        for name, dtype, dimensions, filled in layout
    }
    target = io.BytesIO()
    _write(target, arrays, json.loads(attributes))
    return len(target.getvalue()) - sum(values.nbytes for values in arrays.values())

"""A shard as one HDF5 file with contiguous data sets."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cache.array_spec import ArraySpec
from cache.containers.interface import Arrays, Attributes, Presented, StoredArray
from cache.errors import DamagedCacheError


@dataclass(frozen=True)
class Hdf5Container:
    """HDF5 as h5py writes it; contiguous, because whole examples are read and contiguous reads are
    the fastest."""

    name: str = "hdf5"
    suffix: str = ".h5"

    def write(
        self, path: Path, arrays: Arrays, attributes: Attributes, presented: Mapping[str, Presented]
    ) -> None:
        """Write the arrays into a new file; packed ones as the bytes that they are, described by
        their attributes."""
        whole = (
            io.BytesIO()
        )  # HDF5 does not say in an orderly way that a disk is full; writing a file does
        _write(whole, arrays, attributes)
        path.write_bytes(whole.getbuffer())

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """The one file."""
        return {name}

    def attributes(self, path: Path) -> dict[str, Any]:
        """The file's."""
        try:
            with h5py.File(path, "r", locking=False) as file:
                return dict(file.attrs)
        except Exception as error:  # on bytes from anywhere, a library may stumble in any way
            raise DamagedCacheError(
                f"{path}: damaged, or not an HDF5 file of this project ({error})"
            ) from error

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Find the data sets; those that are chunked, virtual, or lie in other files are
        refused."""
        try:
            with h5py.File(path, "r", locking=False) as file:
                return {name: _located(path, file, name) for name in names}
        except Exception as error:  # on bytes from anywhere, a library may stumble in any way
            raise DamagedCacheError(
                f"{path}: damaged, or not an HDF5 file of this project ({error})"
            ) from error

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        presented: Mapping[str, Presented],
    ) -> int:
        """Values lie one data set after the other; what stands around them does not depend on how
        many there are."""
        layout = tuple(
            (name, spec.dtype.str, len(spec.shape), bool(math.prod(spec.shape)))
            for name, spec in specs.items()
        )
        values = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in specs.values())
        return values + _overhead(layout, json.dumps(attributes))


def _write(target: io.BytesIO, arrays: Arrays, attributes: Attributes) -> None:
    # Without HDF5's management of free space the size of a file follows from the sizes of its
    # arrays.
    with h5py.File(target, "w", libver="v110", fs_strategy="none") as file:
        file.attrs.update(attributes.get("", {}))
        for name, values in arrays.items():
            file.create_dataset(name, data=values).attrs.update(attributes.get(name, {}))


def _located(path: Path, file: h5py.File, name: str) -> StoredArray:
    group = file
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"array {name!r} is missing or a link")
        group = group[part]
    if (
        isinstance(group, h5py.Dataset)
        and not group.size
        and not group.is_virtual
        and not group.external
    ):
        return StoredArray(path, 0, ArraySpec(tuple(map(int, group.shape)), group.dtype))
    offset = (
        group.id.get_offset()
        if isinstance(group, h5py.Dataset) and not (group.external or group.is_virtual)
        else None
    )
    if offset is None:
        raise ValueError(f"{name!r} is not an array whose values lie in one piece in this file")
    return StoredArray(path, int(offset), ArraySpec(tuple(map(int, group.shape)), group.dtype))


@functools.lru_cache
def _overhead(layout: tuple[tuple[str, str, int, bool], ...], attributes: str) -> int:
    """Bytes around the values: the same however many there are."""
    arrays = {
        name: np.ones((int(filled),) * dimensions, dtype)
        for name, dtype, dimensions, filled in layout
    }
    target = io.BytesIO()
    _write(target, arrays, json.loads(attributes))
    return len(target.getvalue()) - sum(values.nbytes for values in arrays.values())

"""A shard as one HDF5 file with contiguous data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cache.errors import DamagedCacheError
from cache.formats.interface import Arrays, Attributes, ShardArrays


@dataclass(frozen=True)
class Hdf5Format:
    """HDF5 as h5py writes it; contiguous, because whole examples are read and contiguous reads are the fastest."""

    name: str = "hdf5"
    suffix: str = ".h5"

    def write(self, path: Path, arrays: Arrays, attributes: Attributes) -> None:
        """Write the arrays into a new file."""
        with h5py.File(path, "w", libver="v110") as file:
            file.attrs.update(attributes.get("", {}))
            for name, values in arrays.items():
                file.create_dataset(name, data=values).attrs.update(attributes.get(name, {}))

    def open(self, path: Path) -> ShardArrays:
        """Open the file."""
        try:
            return _OpenHdf5(path, h5py.File(path, "r", locking=False))
        except (OSError, KeyError, ValueError) as error:
            raise DamagedCacheError(f"{path}: not an HDF5 file ({error})") from error


class _OpenHdf5:
    def __init__(self, path: Path, file: h5py.File) -> None:
        self._path, self._file = path, file

    def _dataset(self, name: str) -> h5py.Dataset:
        try:
            dataset = self._file[name]
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise DamagedCacheError(f"{self._path}: array {name!r} is missing or damaged ({error})") from error
        if not isinstance(dataset, h5py.Dataset):
            raise DamagedCacheError(f"{self._path}: {name!r} is not an array")
        return dataset

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._dataset(name).shape)

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._dataset(name)[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise DamagedCacheError(f"{self._path}: array {name!r} cannot be read ({error})") from error

    def close(self) -> None:
        self._file.close()

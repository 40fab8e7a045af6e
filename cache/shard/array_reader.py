"""Reading rows of a stored array directly from its file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.containers import StoredArray
from cache.errors import DamagedCacheError


class ArrayReader:
    """Reads rows of an array from its file.

    Missing bytes are an error of a plain read, but would kill a process with a memory map. Reads
    pass their offsets, so threads and forked processes may share the open file.
    """

    __slots__ = ("_dtype", "_file", "_offset", "_open", "_row_bytes", "_row_shape", "length")

    def __init__(self, stored: StoredArray) -> None:
        self._file, self._offset, self._dtype = stored.file, stored.offset, stored.spec.dtype
        self.length, *rest = stored.spec.shape
        self._row_shape = tuple(rest)
        self._row_bytes = math.prod(rest) * self._dtype.itemsize
        self._open: _OpenFile | None = None

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows `start` to `stop`.

        Raises:
            DamagedCacheError: the file is missing, cut or unreadable.
        """
        values = np.empty((stop - start, *self._row_shape), self._dtype)
        if not values.size:  # an empty array may have no file
            return values
        offset = self._offset + start * self._row_bytes
        try:
            opened = self._open  # a local reference: another thread may close it meanwhile
            if opened is None:
                opened = self._open = _OpenFile(self._file)
            done = os.preadv(opened.descriptor, [values.data], offset)
            if done != values.nbytes:
                self._read_rest(opened, values.reshape(-1).view(np.uint8), offset, done)
        except OSError as error:
            raise DamagedCacheError(f"{self._file}: cannot be read ({error.strerror})") from error
        return values

    def read_all(self) -> npt.NDArray[Any]:
        """Return the whole array, and close the file.

        Raises:
            DamagedCacheError: the file is missing, cut or unreadable.
        """
        size = self._file.stat().st_size if self._file.is_file() else 0
        if size < self._offset + self.length * self._row_bytes:  # before memory is allocated
            raise DamagedCacheError(f"{self._file}: is shorter than its array")
        values = self.read(0, self.length)
        self.close()
        return values

    def _read_rest(
        self, opened: _OpenFile, target: npt.NDArray[Any], offset: int, done: int
    ) -> None:
        """Continue a short read: the kernel returns at most 2 GiB at a time."""
        while done < len(target):
            count = os.preadv(opened.descriptor, [target[done:].data], offset + done)
            if not count:
                raise DamagedCacheError(f"{self._file}: was cut after it was opened")
            done += count

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._open = None


class _OpenFile:
    """A file descriptor, closed with its last reference."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def read_arrays(located: Mapping[str, StoredArray]) -> dict[str, npt.NDArray[Any]]:
    """Return whole arrays.

    Raises:
        DamagedCacheError: a file is shorter than its array.
    """
    return {name: ArrayReader(stored).read_all() for name, stored in located.items()}

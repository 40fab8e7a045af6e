"""The interface of shard containers: write named arrays once, then locate their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from cache.array_spec import ArraySpec

Arrays = Mapping[str, npt.NDArray[Any]]
Attributes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class DecodedArray:
    """The array that a codec decodes from packed bytes, in containers that support codecs.

    Attributes:
        spec: shape and type of the decoded array.
        codec: name of the codec.
        configuration: arguments of the codec.
    """

    spec: ArraySpec
    codec: str
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class StoredArray:
    """The location of an array's values: raw, row after row, from `offset` in a file."""

    file: Path
    offset: int
    spec: ArraySpec


class Container(Protocol):
    """A file format of shards. Other tools can open it; our reader reads the values directly."""

    @property
    def name(self) -> str:
        """The container's name in manifests and on the command line."""
        ...

    @property
    def suffix(self) -> str:
        """The ending of a shard's file name."""
        ...

    def write(
        self,
        path: Path,
        arrays: Arrays,
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> None:
        """Write one shard.

        Args:
            path: of the new shard.
            arrays: by name.
            attributes: of each array by its name; `""` for those of the shard.
            decoded: the decoded form of packed arrays, by name.
        """
        ...

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """Return the names of the files of a shard's arrays and their metadata."""
        ...

    def attributes(self, path: Path) -> dict[str, Any]:
        """Return the attributes of a shard.

        Raises:
            DamagedCacheError: it is not such a container.
        """
        ...

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Locate the arrays of a shard, reading only their metadata.

        Raises:
            DamagedCacheError: it is not such a container, lacks an array, or has one of another
                layout.
        """
        ...

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        decoded: Mapping[str, DecodedArray],
    ) -> int:
        """Return the exact number of bytes that `write` would write."""
        ...

"""What a shard container can do: write named arrays once, then read rows of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
Attributes = Mapping[str, Mapping[str, Any]]


class ShardArrays(Protocol):
    """An open shard."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an array.

        Raises:
            DamagedCacheError: the shard has no such array.
        """
        ...

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Rows `start:stop` of an array, read into memory.

        Raises:
            DamagedCacheError: the shard has no such array, or it cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...


class ShardFormat(Protocol):
    """A kind of container."""

    @property
    def name(self) -> str:
        """The format's name in manifests and on the command line."""
        ...

    @property
    def suffix(self) -> str:
        """How the names of its shards end."""
        ...

    def write(self, path: Path, arrays: Arrays, attributes: Attributes) -> None:
        """Write one shard. `attributes[name]` describes the array of that name, `attributes[""]` the shard."""
        ...

    def open(self, path: Path) -> ShardArrays:
        """Open a shard for reading.

        Raises:
            DamagedCacheError: it is not such a container.
        """
        ...

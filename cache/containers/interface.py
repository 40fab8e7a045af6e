"""What a shard container can do: write named arrays once, then say where their values lie."""

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
class Presented:
    """The array that stored bytes stand for, to be shown by containers that have codecs of their
    own.

    Attributes:
        spec: shape and type of that array.
        codec: name of the codec that turns the stored bytes into it.
        configuration: what that codec is told.
    """

    spec: ArraySpec
    codec: str
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class StoredArray:
    """Where an array's values lie: raw, one row after the other, from `offset` bytes into a
    file."""

    file: Path
    offset: int
    spec: ArraySpec


class Container(Protocol):
    """A kind of container. Any tool that knows it can open what is written; reading goes straight
    to the values."""

    @property
    def name(self) -> str:
        """The format's name in manifests and on the command line."""
        ...

    @property
    def suffix(self) -> str:
        """How the names of its shards end."""
        ...

    def write(
        self, path: Path, arrays: Arrays, attributes: Attributes, presented: Mapping[str, Presented]
    ) -> None:
        """Write one shard. `attributes[name]` describes the array of that name, `attributes[""]`
        the shard."""
        ...

    def files(self, name: str, specs: Mapping[str, ArraySpec]) -> set[str]:
        """Names of the files that tell of and hold some arrays of the shard of that name."""
        ...

    def attributes(self, path: Path) -> dict[str, Any]:
        """What the shard says of itself.

        Raises:
            DamagedCacheError: it is not such a container.
        """
        ...

    def locate(self, path: Path, names: Iterable[str]) -> dict[str, StoredArray]:
        """Find some arrays in a shard; nothing is read but what describes them.

        Raises:
            DamagedCacheError: it is not such a container, lacks an array, or holds one laid out in
                another way.
        """
        ...

    def size(
        self,
        specs: Mapping[str, ArraySpec],
        attributes: Attributes,
        presented: Mapping[str, Presented],
    ) -> int:
        """Exactly how many bytes `write` would take."""
        ...

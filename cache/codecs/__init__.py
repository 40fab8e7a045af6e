"""How hidden states are stored, by name."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cache.codecs.bf16 import Bf16
from cache.errors import CacheError


class Codec(Protocol):
    """Turns hidden states into an array that any Zarr or HDF5 tool can open, and back."""

    @property
    def name(self) -> str:
        """The codec's name in manifests and on the command line."""
        ...

    @property
    def attributes(self) -> dict[str, str]:
        """What the stored array says of itself."""
        ...

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type of the stored array, `[T, d]`."""
        ...

    def encode(self, hidden_TD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Hidden states `[T, d]` `ml_dtypes.bfloat16` as they are stored."""
        ...

    def decode(self, stored_TD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Stored rows back to `[T, d]` `ml_dtypes.bfloat16`."""
        ...


_CODECS: dict[str, Codec] = {codec.name: codec for codec in (Bf16(),)}
CODEC_NAMES: tuple[str, ...] = tuple(_CODECS)


def codec_named(name: str) -> Codec:
    """Look a codec up.

    Raises:
        CacheError: no codec of that name is known.
    """
    if name not in _CODECS:
        raise CacheError(f"unknown codec {name!r}; this release knows {', '.join(CODEC_NAMES)}")
    return _CODECS[name]

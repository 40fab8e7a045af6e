"""The codecs of hidden states, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from cache.codecs.bf16 import Bf16, Bf16Packing
from cache.codecs.coded import CodedStates, concatenate
from cache.codecs.int8 import Int8, Int8Packing
from cache.codecs.interface import Codec, Packing, Readable, Segments
from cache.codecs.klt import Klt, KltPacking
from cache.errors import CacheError
from cache.names import CODEC_NAMES, EXACT

__all__ = [
    "CODEC_NAMES",
    "EXACT",
    "Codec",
    "CodedStates",
    "Packing",
    "Segments",
    "Readable",
    "codec_of",
    "concatenate",
    "packing_named",
]

_PACKINGS: dict[str, Packing] = {
    packing.name: packing for packing in (Bf16Packing(), Int8Packing(), KltPacking())
}
_FITTED: dict[str, Callable[..., Codec]] = {"int8": Int8, "klt": Klt}


def packing_named(name: str) -> Packing:
    """Return the packing of a codec.

    Raises:
        CacheError: no codec has that name.
    """
    if name not in _PACKINGS:
        raise CacheError(f"unknown codec {name!r}; this release has {', '.join(CODEC_NAMES)}")
    return _PACKINGS[name]


def codec_of(
    name: str,
    parameters: Mapping[str, npt.NDArray[Any]],
    settings: Mapping[str, Any],
    value_type: str,
    file: bytes,
) -> Codec:
    """Return the codec of a fit, whose file has the bytes `file`.

    Raises:
        CacheError: no codec has that name.
    """
    packing_named(name)
    return (
        Bf16()
        if name == EXACT
        else _FITTED[name](
            parameters=parameters, settings=settings, value_type=value_type, file=file
        )
    )

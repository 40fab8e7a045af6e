"""The exact codec: bfloat16 values as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs.coded import CodedStates
from cache.codecs.row_packing import RowPacking


class Bf16Packing(RowPacking):
    """Stores the 16 bits of each value as `uint16`: neither NumPy nor HDF5 has bfloat16."""

    name = "bf16"
    attributes: Mapping[str, Any] = {
        "codec": "bf16",
        "stored_as": (
            "uint16: the bits of bfloat16, which are the upper half of an IEEE 754 float32's"
        ),
    }

    def spec(self, rows: int, hidden_size: int) -> ArraySpec:
        """Return the shape and type of `[rows, d_teacher]` values."""
        return ArraySpec((rows, hidden_size), np.dtype(np.uint16))

    def rows_of(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return the values."""
        return coded.values

    def coded_of(self, rows: npt.NDArray[Any]) -> CodedStates:
        """Return the values."""
        return CodedStates(rows)


@dataclass(frozen=True)
class Bf16:
    """Keeps every bit; needs no fit."""

    name: str = "bf16"
    value_type: str = "uint16"
    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    file: bytes | None = None

    def encode(self, hidden_ND: npt.NDArray[Any]) -> CodedStates:
        """Return the bits of the values."""
        return CodedStates(hidden_ND.astype(ml_dtypes.bfloat16, copy=False).view(np.uint16))

    def decode(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return the values of the bits."""
        return np.ascontiguousarray(coded.values).view(ml_dtypes.bfloat16)

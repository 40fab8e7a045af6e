"""The exact codec: bfloat16 values as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Bf16:
    """Stores each value's 16 bits. Neither NumPy nor HDF5 has bfloat16, so the array's type is `uint16`."""

    name: str = "bf16"

    @property
    def attributes(self) -> dict[str, str]:
        """Says how to read the stored integers."""
        return {
            "codec": self.name,
            "stored_as": "uint16: the bits of bfloat16, which are the upper half of an IEEE 754 float32's",
        }

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The bits of a bfloat16."""
        return np.dtype(np.uint16)

    def encode(self, hidden_TD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The bits of `[T, d]` bfloat16 values as `[T, d]` uint16."""
        return hidden_TD.astype(ml_dtypes.bfloat16, copy=False).view(np.uint16)

    def decode(self, stored_TD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values whose bits were stored."""
        return stored_TD.view(ml_dtypes.bfloat16)

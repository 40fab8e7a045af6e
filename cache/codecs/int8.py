"""`int8`: one byte per value, with a scale per channel and a scale per token."""

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

_SCALE_BYTES = 4
_LARGEST = 127


class Int8Packing(RowPacking):
    """A token's row: its values as int8, then its scale as a little-endian float32."""

    name = "int8"
    attributes: Mapping[str, Any] = {
        "codec": "int8",
        "stored_as": (
            "uint8 [tokens, d_teacher + 4]: int8 values, then the token's scale, a little-endian"
            " float32; state = value * token scale * channel scale; the channel scales are in the"
            " cache's attachments/codecs"
        ),
    }

    def spec(self, rows: int, hidden_size: int) -> ArraySpec:
        """Return the shape and type: a byte per value, and four for the scale."""
        return ArraySpec((rows, hidden_size + _SCALE_BYTES), np.dtype(np.uint8))

    def rows_of(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return values and scales side by side."""
        assert coded.scales is not None
        scales = np.ascontiguousarray(coded.scales, "<f4").view(np.uint8).reshape(-1, _SCALE_BYTES)
        return np.concatenate([coded.values.view(np.uint8), scales], axis=1)

    def coded_of(self, rows: npt.NDArray[Any]) -> CodedStates:
        """Return values and scales separately."""
        scales = np.ascontiguousarray(rows[:, -_SCALE_BYTES:]).view("<f4")[:, 0]
        return CodedStates(rows[:, :-_SCALE_BYTES].view(np.int8), scales)


@dataclass(frozen=True, eq=False)
class Int8:
    """Divides channels by fitted scales, then scales each token to the int8 range.

    Attributes:
        parameters: `channel_scales` `[d_teacher]` float32.
        settings: of the calibration.
    """

    parameters: Mapping[str, npt.NDArray[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = "int8"
    value_type: str = "int8"
    file: bytes | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, hidden_ND: npt.NDArray[Any], settings: Mapping[str, Any]) -> Int8:
        """Fit the channel scales: the root mean square of each channel over normalised tokens.

        Tokens are normalised because the states of attention sinks in middle layers are hundreds of
        times as long as others.
        """
        values_ND = hidden_ND.astype(np.float64)
        lengths_N1 = np.sqrt((values_ND**2).mean(axis=1, keepdims=True))
        scales_D = np.sqrt(
            ((values_ND / np.maximum(lengths_N1, np.finfo(np.float32).tiny)) ** 2).mean(axis=0)
        )
        fallback = scales_D.max() or 1.0
        scales_D = np.maximum(scales_D, fallback * 1e-4)  # a channel may be 0 only in the sample
        return cls({"channel_scales": scales_D.astype(np.float32)}, settings)

    def encode(self, hidden_ND: npt.NDArray[Any]) -> CodedStates:
        """Round each value to the nearest of 255 levels of its token's range."""
        scaled_ND = hidden_ND.astype(np.float32) / self.parameters["channel_scales"]
        scales_N = (np.abs(scaled_ND).max(axis=1, initial=0.0) / _LARGEST).astype(np.float32)
        steps_N = np.where(scales_N > 0, scales_N, np.float32(1))
        return CodedStates(
            np.rint(scaled_ND / steps_N[:, None]).clip(-_LARGEST, _LARGEST).astype(np.int8),
            scales_N,
        )

    def decode(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Return value times token scale times channel scale."""
        assert coded.scales is not None
        states_TD = (
            coded.values.astype(np.float32)
            * coded.scales[:, None]
            * self.parameters["channel_scales"]
        )
        decoded_TD: npt.NDArray[Any] = states_TD.astype(ml_dtypes.bfloat16)
        return decoded_TD

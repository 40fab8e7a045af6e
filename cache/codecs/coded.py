"""Coded hidden states, outside of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class CodedStates:
    """The coded hidden states of some tokens; decoded on the training device.

    Attributes:
        values: `[T, d_teacher]` the coded values: uint16 (the bits of bfloat16), int8 or int16.
        scales: `[T]` float32, a scale per token, if the codec has one.
        exact_rows: `[K]` int64, the tokens kept exactly, in ascending order.
        exact_values: `[K, d_teacher]` uint16, their states as the bits of bfloat16.
    """

    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None = None
    exact_rows: npt.NDArray[np.int64] | None = None
    exact_values: npt.NDArray[np.uint16] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def finite(self) -> bool:
        """Whether all decoded states are finite."""
        bits = [
            values
            for values in (self.values, self.exact_values)
            if values is not None and values.dtype == np.uint16
        ]
        scales = self.scales is None or bool(np.isfinite(self.scales).all())
        with np.errstate(invalid="ignore"):  # a signalling NaN warns
            return scales and all(
                np.isfinite(np.ascontiguousarray(values).view(ml_dtypes.bfloat16)).all()
                for values in bits
            )

    def rows(self, start: int, stop: int) -> CodedStates:
        """Return the coded states of tokens `start` to `stop`."""
        scales = None if self.scales is None else self.scales[start:stop]
        if self.exact_rows is None or self.exact_values is None:
            return CodedStates(self.values[start:stop], scales)
        kept = slice(*np.searchsorted(self.exact_rows, [start, stop]))
        return CodedStates(
            self.values[start:stop], scales, self.exact_rows[kept] - start, self.exact_values[kept]
        )


def concatenate(parts: Sequence[CodedStates]) -> CodedStates:
    """Join coded states of consecutive tokens, all of the same codec."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values for part in parts])
    scales = [part.scales for part in parts if part.scales is not None]
    starts = np.cumsum([0, *map(len, parts[:-1])])
    kept = [
        (part.exact_rows + start, part.exact_values)
        for part, start in zip(parts, starts, strict=True)
        if part.exact_rows is not None
    ]
    return CodedStates(
        values,
        np.concatenate(scales) if scales else None,
        np.concatenate([rows for rows, _ in kept]) if kept else None,
        np.concatenate([exact for _, exact in kept if exact is not None]) if kept else None,
    )

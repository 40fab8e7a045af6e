"""`klt`: a rotation fitted to the data, one step for all components, entropy coding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from cache.array_spec import ArraySpec
from cache.codecs.coded import CodedStates
from cache.codecs.interface import Readable, Segments
from cache.codecs.page_reader import PagedSegments
from cache.codecs.pages import pack_pages, require_packable

_ROWS_AT_A_TIME = 4096
_FAR = 100.0
"""Tokens whose squared distance from the mean exceeds the median by this factor are kept exactly:
attention sinks."""
_RARE = 1e-3
"""Share of calibration tokens that may be kept exactly so that the others fit into int8."""
_NARROW, _WIDE = 127, 32767


class KltPacking:
    """Packs states into entropy-coded pages, see `cache.codecs.page_layout`."""

    name = "klt"
    attributes: Mapping[str, Any] = {
        "codec": "klt",
        "stored_as": (
            "entropy-coded pages as in docs/FORMAT.md; state = (value * step) @ basis.T + mean, "
            "with step, basis and mean from the cache's attachments/codecs"
        ),
    }

    def spec(self, rows: int, hidden_size: int) -> ArraySpec | None:
        """Return None: the size depends on the values."""
        return None

    def require_packable(self, lengths: Sequence[int], channels: int) -> None:
        """Refuse segments beyond pcodec's limits."""
        require_packable(lengths, channels)

    def pack(self, coded: CodedStates, lengths: Sequence[int]) -> npt.NDArray[Any]:
        """Return coded states as pages."""
        return pack_pages(coded, lengths)

    def segments(
        self, stored: Readable, size: int, lengths: Sequence[int] | None, hidden_size: int
    ) -> Segments:
        """Return the segments of packed bytes."""
        return PagedSegments(stored, size, hidden_size, lengths)


@dataclass(frozen=True, eq=False)
class Klt:
    """Rotates states onto the eigenvectors of their covariance, and rounds with a single step.

    For Gaussian sources this is reverse water-filling at the step's distortion (Cover and Thomas,
    Elements of Information Theory, 10.3): components below the step vanish, the others take
    bits in proportion to the logarithm of their spread above it.

    Attributes:
        parameters: `mean` `[d_teacher]` float32, `basis` `[d_teacher, d_teacher]` float16 with an
            eigenvector in each column, `eigenvalues` `[d_teacher]` float32, `step` float32, `usual`
            float32, the median squared distance from the mean.
        settings: the requirement, and measurements on calibration tokens left out of the fit.
        value_type: `int8` if the step is coarse enough, else `int16`.
    """

    parameters: Mapping[str, npt.NDArray[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    value_type: str = "int16"
    name: str = "klt"
    file: bytes | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, hidden_ND: npt.NDArray[Any], settings: Mapping[str, Any]) -> Klt:
        """Fit mean and eigenvectors to hidden states `[N, d_teacher]`, with a step of 1."""
        values_ND = hidden_ND.astype(np.float64)
        squares_N = ((values_ND - np.median(values_ND, axis=0)) ** 2).sum(axis=1)
        usual = float(np.median(squares_N))
        values_ND = values_ND[squares_N <= _FAR * usual]
        mean_D = values_ND.mean(axis=0).astype(np.float32)
        centred_ND = values_ND - mean_D
        eigenvalues_D, basis_DD = np.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
        basis_DD = basis_DD[:, ::-1]
        largest_D = basis_DD[np.abs(basis_DD).argmax(axis=0), range(len(mean_D))]
        basis_DD = basis_DD * np.sign(largest_D)  # fixes the arbitrary signs of eigenvectors
        parameters = {
            "mean": mean_D,
            "basis": np.ascontiguousarray(basis_DD.astype(np.float16)),
            "eigenvalues": np.maximum(eigenvalues_D[::-1], 0).astype(np.float32),
            "step": np.float32(1).reshape(1),
            "usual": np.float32(usual).reshape(1),
        }
        return cls(parameters, settings)

    def with_step(self, step: float, hidden_ND: npt.NDArray[Any]) -> Klt:
        """Return the same rotation with another step; int8 if nearly all states `[N, d]` fit."""
        stepped = replace(
            self, parameters={**self.parameters, "step": np.float32(step).reshape(1)}, file=None
        )
        largest_N = np.abs(np.rint(stepped._rotated(hidden_ND))).max(axis=1, initial=0.0)
        usual = float(np.quantile(largest_N, 1 - _RARE)) if len(largest_N) else 0.0
        return replace(stepped, value_type="int8" if usual <= _NARROW else "int16")

    @property
    def step(self) -> float:
        """The quantiser's step, in the units of the hidden states."""
        return float(self.parameters["step"][0])

    def encode(self, hidden_ND: npt.NDArray[Any]) -> CodedStates:
        """Rotate, round, and keep outlying tokens exactly.

        Computed in double precision: rounding must not depend on a machine's order of summation.
        """
        largest = _NARROW if self.value_type == "int8" else _WIDE
        values_ND = np.empty(hidden_ND.shape, self.value_type)
        exact: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(hidden_ND), _ROWS_AT_A_TIME):
            states_ND = hidden_ND[start : start + _ROWS_AT_A_TIME]
            rotated_ND = np.rint(self._rotated(states_ND))
            squares_N = (rotated_ND**2).sum(axis=1) * self.step**2
            far_N = (np.abs(rotated_ND).max(axis=1) > largest) | (
                squares_N > _FAR * float(self.parameters["usual"][0])
            )
            rotated_ND[far_N] = 0
            values_ND[start : start + len(states_ND)] = rotated_ND
            exact.append(start + np.flatnonzero(far_N))
        rows = np.concatenate([np.zeros(0, np.int64), *exact])
        return CodedStates(
            values_ND,
            None,
            rows,
            hidden_ND[rows].astype(ml_dtypes.bfloat16, copy=False).view(np.uint16),
        )

    def decode(self, coded: CodedStates) -> npt.NDArray[Any]:
        """Rotate back, and restore the tokens kept exactly."""
        states_TD: npt.NDArray[Any] = (
            coded.values.astype(np.float32) @ self._rotation_back + self.parameters["mean"]
        ).astype(ml_dtypes.bfloat16)
        if coded.exact_rows is not None and coded.exact_values is not None:
            states_TD[coded.exact_rows] = np.ascontiguousarray(coded.exact_values).view(
                ml_dtypes.bfloat16
            )
        return states_TD

    @cached_property
    def _rotation_back(self) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(
            self.parameters["basis"].astype(np.float32).T * np.float32(self.step)
        )

    def _rotated(self, hidden_ND: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return components along the eigenvectors, in steps."""
        centred_ND = hidden_ND.astype(np.float64) - self.parameters["mean"]
        rotated_ND: npt.NDArray[np.float64] = centred_ND @ (
            self.parameters["basis"].astype(np.float64) / self.step
        )
        return rotated_ND

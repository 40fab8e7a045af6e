"""States and fits for tests of the klt codec."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates
from cache.codecs.klt import Klt


def make_states(rows: int, width: int = 24, seed: int = 0, offset: float = 2.0) -> npt.NDArray[Any]:
    """Return correlated channels with a mean and a falling spectrum, as hidden states have."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(width)
    components = rng.normal(size=(rows, width)) * 4 / (1 + np.arange(width))
    mixed = components @ np.linalg.qr(mixing.normal(size=(width, width)))[
        0
    ] + offset * mixing.normal(size=width)
    states: npt.NDArray[Any] = mixed.astype(ml_dtypes.bfloat16)
    return states


def fitted(step: float = 0.3, width: int = 24, rows: int = 1000) -> Klt:
    states = make_states(rows, width)
    return Klt.fit(states, {}).with_step(step, states)


def bits(states: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(states).view(np.uint16)


def exact_rows(coded: CodedStates) -> list[int]:
    assert coded.exact_rows is not None
    return coded.exact_rows.tolist()


def require_same(left: CodedStates, right: CodedStates) -> None:
    np.testing.assert_array_equal(left.values, right.values)
    assert exact_rows(left) == exact_rows(right)
    np.testing.assert_array_equal(left.exact_values, right.exact_values)

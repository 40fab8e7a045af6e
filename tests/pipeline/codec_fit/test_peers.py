"""Formats of other projects: their errors and rates."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.codec_fit.measures import relative_error
from pipeline.codec_fit.peers import fp8_per_token, int4_in_groups, int8_per_token

STATES = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 70)),
    elements=st.floats(-1e4, 1e4, width=32),
).map(lambda values: values.astype(ml_dtypes.bfloat16))


def in_groups(states: Any) -> tuple[Any, float]:
    return int4_in_groups(states, np.ones(states.shape[1], np.float32))


@given(
    STATES,
    st.sampled_from([(fp8_per_token, 2**-4, 448), (int8_per_token, 0, 254), (in_groups, 0, 14)]),
)
def test_no_value_is_off_by_more_than_half_a_step(
    states: Any, case: tuple[Any, float, int]
) -> None:
    encode, relative, steps = case
    decoded, bits = encode(states)
    exact = np.abs(states.astype(np.float64))
    rounding = 2.0**-8 * exact
    allowed = relative * exact + exact.max(axis=1, keepdims=True) / steps + rounding + 1e-30
    error = np.abs(decoded.astype(np.float64) - states.astype(np.float64))
    assert (error <= 1.001 * allowed).all()
    assert bits > 4


def test_the_rate_counts_values_and_scales() -> None:
    states = np.ones((2, 64), ml_dtypes.bfloat16)
    rates = [encode(states)[1] for encode in (fp8_per_token, int8_per_token, in_groups)]
    assert rates == [8.25, 8.25, 4.5]


@pytest.mark.parametrize(
    ("encode", "least", "most"),
    [(fp8_per_token, 0.02, 0.03), (int8_per_token, 0.005, 0.01), (in_groups, 0.08, 0.12)],
)
def test_errors_on_gaussian_states_are_typical_of_the_format(
    encode: Any, least: float, most: float
) -> None:
    states = np.random.default_rng(0).normal(size=(200, 896)).astype(ml_dtypes.bfloat16)
    assert least < relative_error(states, encode(states)[0]) < most

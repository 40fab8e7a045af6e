"""Distortion and its bound against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.codec_fit.measures import gaussian_bound, relative_error, squared_error


@pytest.mark.parametrize("error", [0.01, 0.25, 1.0, 2.0])
def test_the_bound_of_a_white_source_is_half_the_logarithm_of_its_variance_over_the_error(
    error: float,
) -> None:
    bound = max(0.0, -0.5 * np.log2(error))
    assert gaussian_bound(np.ones(64), 64 * error) == pytest.approx(bound, abs=1e-9)


def test_the_bound_spends_no_bits_on_components_below_the_water_level() -> None:
    # Level 1: the small component is dropped (error 0.5), the large one has half log2(16) bits.
    assert gaussian_bound(np.array([16.0, 0.5]), 1.5) == pytest.approx(2.0 / 2)


def test_errors_are_relative_to_each_token_and_averaged_over_tokens() -> None:
    exact = np.array([[3.0, 4.0], [0.0, 1.0]])
    stored = np.array([[3.0, 3.0], [0.0, 1.0]])
    assert relative_error(exact, stored) == pytest.approx(np.sqrt((1 / 25 + 0) / 2))
    assert squared_error(exact, stored) == pytest.approx(0.5)

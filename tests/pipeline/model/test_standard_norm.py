"""Standardised states: mean 0 and deviation 1 by channel, whatever the teacher's scales."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm

from pipeline.model.bridges.standard_norm import StandardNorm


def sample(scale: float, seed: int) -> torch.Tensor:
    """Return states `[200, 6]` whose first channel is large for every token."""
    generator = torch.Generator().manual_seed(seed)
    states_ND = torch.randn(200, 6, generator=generator)
    states_ND[:, 0] += 20
    return scale * states_ND


@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from([1e-3, 1.0, 1e3]), seed=st.integers(0, 99))
def test_channels_of_the_sample_are_standardised(scale: float, seed: int) -> None:
    norm, states_ND = StandardNorm(6), sample(scale, seed)
    norm.fit(states_ND)
    standard_ND = norm(states_ND[None])[0]
    torch.testing.assert_close(standard_ND.mean(dim=0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(standard_ND.std(dim=0), torch.ones(6), atol=1e-2, rtol=0)


def test_before_the_fit_it_is_a_layer_norm() -> None:
    states_1ND = sample(1.0, 0)[None]
    torch.testing.assert_close(StandardNorm(6)(states_1ND), layer_norm(states_1ND, (6,)))


@pytest.mark.parametrize("constant", [0.0, 5.0])
def test_values_are_limited_where_a_channel_was_constant(constant: float) -> None:
    norm = StandardNorm(4)
    norm.fit(torch.full((10, 4), constant))
    values = norm(torch.tensor([[[0.0, 1.0, 2.0, 50.0]]]))
    assert values.isfinite().all()
    assert float(values.abs().max()) == 10

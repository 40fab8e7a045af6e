"""The int8 codec: bounded errors, which do not depend on other tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codecs import CodedStates, concatenate, packing_named
from cache.codecs.fit_file import fit_bytes, fit_name, identity_of, read_fit, write_fits
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.int8 import Int8

BF16_ROUNDING = 2.0**-8


def make_states(rows: int, width: int = 12, seed: int = 0, scale: float = 1.0) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    values = (
        rng.normal(size=(rows, width))
        * np.logspace(-2, 2, width)
        * scale
        * rng.lognormal(size=(rows, 1))
    )
    states: npt.NDArray[Any] = values.astype(ml_dtypes.bfloat16)
    return states


def require_same(left: CodedStates, right: CodedStates) -> None:
    np.testing.assert_array_equal(left.values, right.values)
    np.testing.assert_array_equal(left.scales, right.scales)


@given(
    rows=st.integers(0, 60),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e6]),
)
@settings(deadline=None)
def test_the_error_is_at_most_half_a_step_of_token_and_channel(
    rows: int, seed: int, scale: float
) -> None:
    codec, states = Int8.fit(make_states(500), {}), make_states(rows, seed=seed, scale=scale)
    coded = codec.encode(states)
    decoded = codec.decode(coded)
    assert (decoded.dtype, decoded.shape) == (ml_dtypes.bfloat16, states.shape)
    assert coded.scales is not None
    steps = coded.scales[:, None].astype(np.float64) * codec.parameters["channel_scales"]
    exact = states.astype(np.float64)
    errors = np.abs(decoded.astype(np.float64) - exact)
    assert (
        errors <= steps * (0.5 + 1e-4) + BF16_ROUNDING * np.abs(decoded.astype(np.float64))
    ).all()
    assert (np.abs(coded.values).max(axis=1, initial=0) == 127).all()  # each token fills the range


@given(cuts=st.lists(st.integers(0, 50), max_size=5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_coding_does_not_depend_on_batches(cuts: list[int], seed: int) -> None:
    codec, states = Int8.fit(make_states(500), {}), make_states(50, seed=seed)
    whole, edges = codec.encode(states), [0, *sorted(cuts), 50]
    parts = [codec.encode(states[start:stop]) for start, stop in pairwise(edges)]
    require_same(concatenate(parts), whole)
    for part, start, stop in zip(parts, edges[:-1], edges[1:], strict=True):
        require_same(part, whole.rows(start, stop))


@given(lengths=st.lists(st.integers(0, 20), min_size=1, max_size=6), width=st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_every_segment_is_read_alone_as_in_the_whole(lengths: Sequence[int], width: int) -> None:
    states = make_states(sum(lengths), width)
    coded = Int8.fit(make_states(100, width), {}).encode(states)
    packing = packing_named("int8")
    packed = packing.pack(coded, lengths)
    spec = packing.spec(sum(lengths), width)
    assert spec is not None and (packed.shape, packed.dtype) == (spec.shape, spec.dtype)
    segments = packing.segments(InMemoryArray(packed), len(packed), lengths, width)
    assert len(segments) == len(lengths)
    for segment, length in enumerate(lengths):
        start = sum(lengths[:segment])
        assert segments.stored_range(segment) == (start, start + length)
        require_same(segments.read(segment), coded.rows(start, start + length))


def test_zero_tokens_are_decoded_as_zeros() -> None:
    codec, states = Int8.fit(make_states(100), {}), make_states(9)
    states[[0, 4, 8]] = 0
    decoded = codec.decode(codec.encode(states)).astype(np.float32)
    assert not decoded[[0, 4, 8]].any()
    assert decoded[[1, 2, 3]].any(axis=1).all()


def test_empty_states_are_coded_and_decoded() -> None:
    codec = Int8.fit(make_states(100), {})
    coded = codec.encode(make_states(0))
    assert codec.decode(coded).shape == (0, 12)
    assert packing_named("int8").pack(coded, [0]).shape == (0, 16)


@pytest.mark.parametrize("constant", [0.0, 2.5])
def test_a_channel_that_is_constant_in_the_sample_is_coded(constant: float) -> None:
    sample, states = make_states(100), make_states(50, seed=1)
    sample[:, 3] = constant
    states[:, 3] = constant
    states[7, 3] = 40.0  # not seen in the sample
    codec = Int8.fit(sample, {})
    assert (codec.parameters["channel_scales"] > 0).all()
    decoded = codec.decode(codec.encode(states)).astype(np.float32)
    assert np.isfinite(decoded).all()
    assert decoded[7, 3] == pytest.approx(40.0, rel=0.02)


@pytest.mark.parametrize("states", [np.zeros((20, 4)), np.full((20, 4), 1.5)])
def test_a_constant_sample_can_be_fitted(states: npt.NDArray[np.float64]) -> None:
    exact = states.astype(ml_dtypes.bfloat16)
    codec = Int8.fit(exact, {})
    decoded = codec.decode(codec.encode(exact)).astype(np.float32)
    np.testing.assert_allclose(decoded, states, rtol=0.01)


def test_outlying_tokens_do_not_dominate_the_fit() -> None:
    sample = make_states(1000)
    spoilt = sample.copy()
    spoilt[::200] = (spoilt[::200].astype(np.float32) * 500).astype(ml_dtypes.bfloat16)
    clean, other = (
        Int8.fit(states, {}).parameters["channel_scales"] for states in (sample, spoilt)
    )
    np.testing.assert_allclose(other, clean, rtol=0.01)
    codec = Int8.fit(spoilt, {})
    one, another = codec.encode(sample), codec.encode(spoilt)
    rest = np.arange(1000) % 200 != 0
    np.testing.assert_array_equal(one.values[rest], another.values[rest])


def test_fits_are_deterministic_and_are_read_back(
    tmp_path: Path,
) -> None:
    states = make_states(300)
    codec = Int8.fit(states, {"asked": {"calibration_tokens": 5}})
    assert fit_bytes(codec) == fit_bytes(
        Int8.fit(states.copy(), {"asked": {"calibration_tokens": 5}})
    )
    write_fits(tmp_path, {3: codec})
    read = read_fit(tmp_path / "codecs" / fit_name(3), "int8", 12)
    assert identity_of(read) == identity_of(codec)
    require_same(read.encode(states), codec.encode(states))

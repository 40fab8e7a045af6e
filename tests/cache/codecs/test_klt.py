"""The klt codec: bounded errors, tokens kept exactly, and independence of batches."""

from __future__ import annotations

from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.codecs import packing_named
from cache.codecs.fit_file import fit_bytes
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.klt import Klt
from tests.cache.codecs.klt_states import bits, exact_rows, fitted, make_states, require_same

BF16_ROUNDING = 2.0**-8


STEPS = [0.02, 0.3, 5.0]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_rotated_components_is_at_most_half_a_step(step: float, seed: int) -> None:
    codec, states = fitted(step), make_states(300, seed=seed)
    coded = codec.encode(states)
    assert exact_rows(coded) == []
    basis = codec.parameters["basis"].astype(np.float64)
    rotated = (states.astype(np.float64) - codec.parameters["mean"]) @ basis
    errors = np.abs(coded.values.astype(np.float64) * codec.step - rotated)
    assert errors.max() <= codec.step / 2 * (1 + 1e-6)
    assert errors.max() > codec.step / 4  # else nothing was rounded, and the test proves nothing


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_the_error_of_decoded_states_is_bounded_by_steps_and_rounding(
    step: float, seed: int
) -> None:
    codec, states = fitted(step), make_states(300, seed=seed)
    decoded = codec.decode(codec.encode(states))
    assert (decoded.dtype, decoded.shape) == (ml_dtypes.bfloat16, states.shape)
    basis = codec.parameters["basis"].astype(np.float64)
    exact = states.astype(np.float64)
    rotation_error = np.linalg.norm(basis @ basis.T - np.eye(24), 2)  # the basis is stored in fp16
    assert rotation_error < 5e-3
    centred = np.linalg.norm(exact - codec.parameters["mean"], axis=1)
    quantised = np.linalg.norm(basis, 2) * np.sqrt(24) * step / 2
    allowed = (
        quantised
        + rotation_error * centred
        + BF16_ROUNDING * np.linalg.norm(decoded.astype(np.float64), axis=1)
        + 1e-5
    )
    assert (np.linalg.norm(decoded.astype(np.float64) - exact, axis=1) <= allowed).all()


@given(
    cuts=st.lists(st.integers(0, 120), max_size=5),
    step=st.sampled_from(STEPS),
    seed=st.integers(0, 20),
)
@settings(deadline=None, max_examples=40)
def test_coding_does_not_depend_on_batches(cuts: list[int], step: float, seed: int) -> None:
    codec, states = fitted(step), make_states(120, seed=seed)
    states[17] *= 400
    states[83] *= 400
    whole = codec.encode(states)
    edges = [0, *sorted(cuts), 120]
    for start, stop in pairwise(edges):
        require_same(codec.encode(states[start:stop]), whole.rows(start, stop))


def test_coding_does_not_depend_on_internal_blocks_of_rows() -> None:
    codec, states = fitted(), make_states(9000, seed=5)
    far = [0, 4095, 4096, 8191, 8192, 8999]
    states[far] *= 400
    whole = codec.encode(states)
    assert exact_rows(whole) == far
    for start in (0, 4090, 4096, 8190):
        require_same(codec.encode(states[start : start + 700]), whole.rows(start, start + 700))


def test_fit_and_packed_bytes_are_deterministic() -> None:
    one, other = fitted(), fitted()
    assert fit_bytes(one) == fit_bytes(other)
    states = make_states(200, seed=1)
    packed = [
        packing_named("klt").pack(codec.encode(states), [150, 50]).tobytes()
        for codec in (one, other)
    ]
    assert packed[0] == packed[1]
    require_same(one.encode(np.asfortranarray(states)), one.encode(states))


@pytest.mark.parametrize("width", [1, 15, 16, 17, 40])
def test_states_of_any_width_are_read_back_from_pages(width: int) -> None:
    codec, states = fitted(width=width), make_states(90, width, seed=2)
    lengths = [0, 31, 0, 58, 1]
    packing = packing_named("klt")
    packed = packing.pack(codec.encode(states), lengths)
    segments = packing.segments(InMemoryArray(packed), len(packed), lengths, width)
    read = np.concatenate([codec.decode(segments.read(segment)) for segment in range(len(lengths))])
    expected = codec.decode(codec.encode(states))
    np.testing.assert_allclose(
        read.astype(np.float32), expected.astype(np.float32), rtol=2**-7, atol=1e-6
    )
    # sums in another order may round to a neighbouring value
    assert (bits(read) == bits(expected)).mean() > 0.99


@pytest.mark.parametrize("factor", [60.0, 500.0, 1e6])
def test_outlying_tokens_are_exact_and_do_not_affect_others(factor: float) -> None:
    states = make_states(5000, offset=0.0)
    far = [0, 7, 400, 4999]
    spoilt = states.copy()
    spoilt[far] = (spoilt[far].astype(np.float32) * factor).astype(ml_dtypes.bfloat16)
    lengths = np.linalg.norm(spoilt.astype(np.float32), axis=1)
    assert (lengths[far] > 8 * np.median(lengths)).all()
    codec = Klt.fit(spoilt, {}).with_step(0.3, spoilt)
    coded = codec.encode(spoilt)
    assert set(far) <= set(exact_rows(coded))
    decoded = codec.decode(coded)
    np.testing.assert_array_equal(bits(decoded)[far], bits(spoilt)[far])
    others = np.setdiff1d(np.arange(5000), exact_rows(coded))
    assert len(others) > 4980
    error = np.linalg.norm(
        decoded[others].astype(np.float64) - states[others].astype(np.float64), axis=1
    )
    assert np.sqrt((error**2).mean()) < 0.3 * np.sqrt(24 / 12) * 1.1
    assert codec.value_type == "int8"  # a few outliers do not widen the value type


def test_tokens_beyond_the_value_type_are_kept_exactly() -> None:
    states = make_states(1000)
    for step, value_type in ((0.3, "int8"), (0.005, "int16"), (1e-5, "int16")):
        codec = Klt.fit(states, {}).with_step(step, states)
        assert codec.value_type == value_type
        coded = codec.encode(states)
        assert coded.values.dtype == value_type
        decoded, kept = codec.decode(coded), exact_rows(coded)
        np.testing.assert_array_equal(bits(decoded)[kept], bits(states)[kept])
        assert (len(kept) > 500) == (step == 1e-5)
        assert np.isfinite(decoded.astype(np.float32)).all()


def test_empty_states_are_coded_and_decoded() -> None:
    codec = fitted()
    coded = codec.encode(make_states(0))
    assert (coded.values.shape, exact_rows(coded)) == ((0, 24), [])
    assert codec.decode(coded).shape == (0, 24)
    packed = packing_named("klt").pack(coded, [0, 0])
    segments = packing_named("klt").segments(InMemoryArray(packed), len(packed), [0, 0], 24)
    assert len(segments.read(1)) == 0


@pytest.mark.parametrize("value", [0.0, -3.25, 1e-3])
def test_constant_states_are_decoded_exactly(value: float) -> None:
    states = np.full((50, 8), value, ml_dtypes.bfloat16)
    codec = Klt.fit(states, {}).with_step(0.1, states)
    np.testing.assert_array_equal(
        codec.decode(codec.encode(states)).astype(np.float32), states.astype(np.float32)
    )


def test_a_constant_channel_has_no_eigenvalue_and_is_decoded() -> None:
    states = make_states(500)
    states[:, 5] = 3.5
    codec = Klt.fit(states, {}).with_step(0.05, states)
    assert codec.parameters["eigenvalues"][-1] < 1e-6
    decoded = codec.decode(codec.encode(states)).astype(np.float32)
    np.testing.assert_allclose(decoded[:, 5], 3.5, atol=0.05)


def test_the_basis_is_a_rotation_with_descending_eigenvalues() -> None:
    codec = fitted()
    basis = codec.parameters["basis"].astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(24), atol=5e-3)
    assert (np.diff(codec.parameters["eigenvalues"]) <= 0).all()
    rotated = (make_states(1000).astype(np.float64) - codec.parameters["mean"]) @ basis
    np.testing.assert_allclose(
        rotated.var(axis=0), codec.parameters["eigenvalues"], rtol=0.05, atol=1e-3
    )

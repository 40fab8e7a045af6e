"""The klt codec: how far off a state may be, which are kept exactly, and that nothing depends on
batches."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from cache.codecs import CodedStates, packing_named
from cache.codecs.fit_file import fit_bytes, fit_name, identity_of, read_fit, write_fits
from cache.codecs.in_memory import InMemoryArray
from cache.codecs.klt import Klt
from cache.errors import DamagedCacheError
from cache.sealed_json import canonical_json

BF16_ROUNDING = 2.0**-8
STEPS = [0.02, 0.3, 5.0]


def make_states(rows: int, width: int = 24, seed: int = 0, offset: float = 2.0) -> npt.NDArray[Any]:
    """Channels that go together, with a mean and a spectrum that falls, as hidden states have."""
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


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_every_rotated_component_is_at_most_half_a_step_off(step: float, seed: int) -> None:
    codec, states = fitted(step), make_states(300, seed=seed)
    coded = codec.encode(states)
    assert exact_rows(coded) == []
    basis = codec.parameters["basis"].astype(np.float64)
    rotated = (states.astype(np.float64) - codec.parameters["mean"]) @ basis
    errors = np.abs(coded.values.astype(np.float64) * codec.step - rotated)
    assert errors.max() <= codec.step / 2 * (1 + 1e-6)
    assert errors.max() > codec.step / 4  # or nothing has been rounded, and this test tells nothing


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(3))
def test_a_decoded_state_is_off_by_the_steps_and_roundings_and_no_more(
    step: float, seed: int
) -> None:
    codec, states = fitted(step), make_states(300, seed=seed)
    decoded = codec.decode(codec.encode(states))
    assert (decoded.dtype, decoded.shape) == (ml_dtypes.bfloat16, states.shape)
    basis = codec.parameters["basis"].astype(np.float64)
    exact = states.astype(np.float64)
    rotation_error = np.linalg.norm(basis @ basis.T - np.eye(24), 2)  # the basis is kept in fp16
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
def test_states_are_coded_alike_however_they_are_batched(
    cuts: list[int], step: float, seed: int
) -> None:
    codec, states = fitted(step), make_states(120, seed=seed)
    states[17] *= 400
    states[83] *= 400
    whole = codec.encode(states)
    edges = [0, *sorted(cuts), 120]
    for start, stop in pairwise(edges):
        require_same(codec.encode(states[start:stop]), whole.rows(start, stop))


def test_states_are_coded_alike_across_the_rows_that_are_taken_at_a_time() -> None:
    codec, states = fitted(), make_states(9000, seed=5)
    far = [0, 4095, 4096, 8191, 8192, 8999]
    states[far] *= 400
    whole = codec.encode(states)
    assert exact_rows(whole) == far
    for start in (0, 4090, 4096, 8190):
        require_same(codec.encode(states[start : start + 700]), whole.rows(start, start + 700))


def test_the_same_states_always_give_the_same_fit_and_the_same_bytes() -> None:
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
def test_states_of_any_width_come_back_from_their_pages(width: int) -> None:
    codec, states = fitted(width=width), make_states(90, width, seed=2)
    lengths = [0, 31, 0, 58, 1]
    packing = packing_named("klt")
    packed = packing.pack(codec.encode(states), lengths)
    segments = packing.segments(InMemoryArray(packed), len(packed), lengths, width)
    found = np.concatenate(
        [codec.decode(segments.read(segment)) for segment in range(len(lengths))]
    )
    wanted = codec.decode(codec.encode(states))
    np.testing.assert_allclose(
        found.astype(np.float32), wanted.astype(np.float32), rtol=2**-7, atol=1e-6
    )
    assert (
        bits(found) == bits(wanted)
    ).mean() > 0.99  # a sum in another order may round to the neighbour


@pytest.mark.parametrize("factor", [60.0, 500.0, 1e6])
def test_tokens_far_out_are_kept_to_the_bit_and_cost_the_others_nothing(factor: float) -> None:
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
    assert codec.value_type == "int8"  # a few far tokens do not widen the values of all


def test_what_does_not_fit_the_value_type_is_kept_to_the_bit() -> None:
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


def test_no_states_at_all_are_coded_and_decoded() -> None:
    codec = fitted()
    coded = codec.encode(make_states(0))
    assert (coded.values.shape, exact_rows(coded)) == ((0, 24), [])
    assert codec.decode(coded).shape == (0, 24)
    packed = packing_named("klt").pack(coded, [0, 0])
    assert (
        len(packing_named("klt").segments(InMemoryArray(packed), len(packed), [0, 0], 24).read(1))
        == 0
    )


@pytest.mark.parametrize("value", [0.0, -3.25, 1e-3])
def test_states_that_are_all_alike_come_back_as_they_were(value: float) -> None:
    states = np.full((50, 8), value, ml_dtypes.bfloat16)
    codec = Klt.fit(states, {}).with_step(0.1, states)
    np.testing.assert_array_equal(
        codec.decode(codec.encode(states)).astype(np.float32), states.astype(np.float32)
    )


def test_a_constant_channel_costs_nothing_and_comes_back() -> None:
    states = make_states(500)
    states[:, 5] = 3.5
    codec = Klt.fit(states, {}).with_step(0.05, states)
    assert codec.parameters["eigenvalues"][-1] < 1e-6
    decoded = codec.decode(codec.encode(states)).astype(np.float32)
    np.testing.assert_allclose(decoded[:, 5], 3.5, atol=0.05)


def test_the_basis_is_a_rotation_and_its_eigenvalues_fall() -> None:
    codec = fitted()
    basis = codec.parameters["basis"].astype(np.float64)
    np.testing.assert_allclose(basis.T @ basis, np.eye(24), atol=5e-3)
    assert (np.diff(codec.parameters["eigenvalues"]) <= 0).all()
    rotated = (make_states(1000).astype(np.float64) - codec.parameters["mean"]) @ basis
    np.testing.assert_allclose(
        rotated.var(axis=0), codec.parameters["eigenvalues"], rtol=0.05, atol=1e-3
    )


def test_the_fit_comes_back_from_its_file(tmp_path: Path) -> None:
    codec, states = fitted(), make_states(100, seed=3)
    write_fits(tmp_path, {-1: codec})
    file = tmp_path / "codecs" / fit_name(-1)
    read = read_fit(file, "klt", 24)
    assert identity_of(read) == identity_of(codec)
    require_same(read.encode(states), codec.encode(states))
    np.testing.assert_array_equal(
        bits(read.decode(codec.encode(states))), bits(codec.decode(codec.encode(states)))
    )
    for name, width in (("int8", 24), ("klt", 25)):
        with pytest.raises(DamagedCacheError, match="not a fit of the"):
            read_fit(file, name, width)


def test_a_fit_is_known_by_its_file_however_that_was_written(tmp_path: Path) -> None:
    whole, file = fit_bytes(fitted(width=4)), tmp_path / fit_name(-1)
    size = int.from_bytes(whole[:8], "little")
    file.write_bytes(
        (size + 8).to_bytes(8, "little") + whole[8 : 8 + size] + b" " * 8 + whole[8 + size :]
    )
    read = read_fit(file, "klt", 4)
    assert fit_bytes(read) == file.read_bytes() != whole
    assert identity_of(read)["fit"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert fit_bytes(read.with_step(0.1, make_states(10, 4))) != file.read_bytes()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "settings", [{"asked": 5}, {"found": 5}, {"found": {"bits_per_value": "x"}}, 7, None]
)
def test_a_fit_that_says_nonsense_of_itself_is_refused(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / fit_name(-1)
    described = canonical_json({"name": "klt", "settings": settings, "value_type": "int8"}).decode()
    file.write_bytes(save(dict(fitted(width=4).parameters), metadata={"codec": described}))
    with pytest.raises(DamagedCacheError, match="not a fit of the klt codec"):
        read_fit(file, "klt", 4)


def test_a_damaged_fit_is_refused_or_another_one(tmp_path: Path) -> None:
    codec, file, rng = fitted(width=4), tmp_path / "fit.safetensors", np.random.default_rng(0)
    whole = fit_bytes(codec)
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        file.write_bytes(broken)
        try:
            assert identity_of(read_fit(file, "klt", 4)) != identity_of(codec)
        except DamagedCacheError:
            continue
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with pytest.raises(DamagedCacheError):
            read_fit(file, "klt", 4)

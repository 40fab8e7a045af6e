"""A fitted codec meets its requirement on states that it was not fitted to, or is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cache.codecs.fit_file import fit_bytes
from pipeline.codec_fit.fit import fit_codec
from pipeline.codec_fit.measures import KL, relative_error
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.codec_fit.sample import Sample, split_sample
from pipeline.errors import InputError


def segments(count: int = 12, width: int = 32) -> list[Any]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width)) * np.exp(-np.arange(width) / 6)
    return [
        (rng.normal(size=(rng.integers(20, 60), width)) @ mixing.T + 1).astype(ml_dtypes.bfloat16)
        for _ in range(count)
    ]


def sample(count: int = 12) -> Sample:
    return split_sample(segments(count))


def test_one_of_four_segments_is_measured_and_no_other_is_left_out() -> None:
    all_segments = segments()
    split = split_sample([all_segments[0][:0], *all_segments])
    assert np.array_equal(split.measured, np.concatenate(all_segments[1::4]))
    assert split.measured_lengths == [len(segment) for segment in all_segments[1::4]]
    assert len(split.fitted) + len(split.measured) == sum(map(len, all_segments))


def test_a_single_segment_is_both_fitted_to_and_measured() -> None:
    split = split_sample(segments(1))
    assert np.array_equal(split.fitted, split.measured)


@pytest.mark.parametrize("target", [0.02, 0.09, 0.4])
def test_a_relative_error_is_met(target: float) -> None:
    states = sample()
    codec = fit_codec(CodecRequirement("klt", "rel", target), states, None)
    error = relative_error(states.measured, codec.decode(codec.encode(states.measured)))
    assert 0.98 * target <= error <= target


@pytest.mark.parametrize("target", [1.5, 3.0])
def test_a_rate_is_met(target: float) -> None:
    codec = fit_codec(CodecRequirement("klt", "bits", target), sample(200), None)
    assert 0.98 * target <= codec.settings["found"]["bits_per_value"] <= target


def test_a_divergence_is_met_with_its_standard_error() -> None:
    def divergence(exact: Any, decoded: Any) -> list[KL]:
        return [KL(relative_error(exact, stored) ** 2, 0.0001) for stored in decoded]

    codec = fit_codec(CodecRequirement("klt", "kl", 0.01), sample(), divergence)
    distortion = codec.settings["found"]
    assert 0.97 * 0.01 <= distortion["kl"] + distortion["kl_error"] <= 0.01


@pytest.mark.parametrize(
    ("measure", "target", "message"),
    [
        ("bits", 1e-5, "more .* larger"),
        ("bits", 25, "less .* smaller"),
        ("rel", 1.5, "less .* smaller"),
    ],
)
def test_a_requirement_that_no_step_meets_is_refused_with_the_direction_to_change_it(
    measure: Any, target: float, message: str
) -> None:
    with pytest.raises(InputError, match=f"every step gives {message}"):
        fit_codec(CodecRequirement("klt", measure, target), sample(), None)


@pytest.mark.parametrize("target", [1e-9, 1e-5])
def test_a_requirement_that_takes_as_many_bits_as_the_exact_codec_is_refused(
    target: float,
) -> None:
    message = f"rel={target:g} takes 16 bits per value or more, as many as bf16, which is exact"
    with pytest.raises(InputError, match=message):
        fit_codec(CodecRequirement("klt", "rel", target), sample(), None)


def test_a_measure_that_jumps_over_the_target_ends_below_it() -> None:
    def divergence(exact: Any, decoded: Any) -> list[KL]:
        return [
            KL(0.001 if relative_error(exact, stored) < 0.1 else 5.0, 0.0) for stored in decoded
        ]

    codec = fit_codec(CodecRequirement("klt", "kl", 0.1), sample(), divergence)
    distortion = codec.settings["found"]
    assert distortion["kl"] == 0.001
    assert 0.09 < distortion["relative_error"] < 0.1


@pytest.mark.parametrize("name", ["int8", "klt"])
def test_the_same_sample_gives_the_same_fit_byte_for_byte(name: str) -> None:
    requirement = CodecRequirement(name, "rel" if name == "klt" else None, 0.1)
    fits = [fit_bytes(fit_codec(requirement, sample(), None)) for _ in range(2)]
    assert fits[0] == fits[1]

"""What is asked of a codec is understood or refused, and what is understood is met."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from cache.codecs.fit_file import fit_bytes
from pipeline.codec_fit.fit import fit_codec
from pipeline.codec_fit.measures import KL, gaussian_bound, relative_error
from pipeline.codec_fit.requirements import CodecRequirement, codec_requirements
from pipeline.codec_fit.sample import split_sample
from pipeline.errors import InputError

USUAL = {"fidelity": (), "bits": (), "calibration_tokens": 100, "seed": 0}


def segments(count: int = 12, width: int = 32) -> list[Any]:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width)) * np.exp(-np.arange(width) / 6)
    return [
        (rng.normal(size=(rng.integers(20, 60), width)) @ mixing.T + 1).astype(ml_dtypes.bfloat16)
        for _ in range(count)
    ]


def test_one_layer_can_be_asked_otherwise_than_the_rest() -> None:
    asked = codec_requirements(
        (-1, 0, 3),
        -1,
        **USUAL | {"codec": ("klt", "0:bf16"), "fidelity": ("rel=0.2", "-1:kl=0.02")},
    )
    assert {layer: (each.name, each.measure, each.target) for layer, each in asked.items()} == {
        -1: ("klt", "kl", 0.02), 0: ("bf16", None, 0.0), 3: ("klt", "rel", 0.2)}  # fmt: skip


def test_the_last_layer_is_held_to_a_divergence_and_others_to_an_error() -> None:
    asked = codec_requirements((-1, 3), -1, **USUAL | {"codec": ("klt",)})
    assert [(each.measure, each.target) for each in asked.values()] == [("kl", 0.01), ("rel", 0.09)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": ("mp3",)}, "no such codec"),
        ({"codec": ("klt", "int8")}, "given twice"),
        ({"codec": ("klt", "-1:klt", "-1:int8")}, "given twice for layer -1"),
        ({"codec": ("7:klt",)}, "none of the layers"),
        ({"codec": ("int8",), "bits": ("3",)}, "fixed rate"),
        ({"codec": ("klt",), "fidelity": ("rel=0",)}, "not a number above 0"),
        ({"codec": ("klt",), "fidelity": ("good",)}, "write kl=0.01"),
        ({"codec": ("klt",), "fidelity": ("3:kl=0.01",)}, "does not read layer 3"),
        ({"codec": ("klt",), "fidelity": ("rel=0.1",), "bits": ("3",)}, "keep one of them"),
    ],
)
def test_what_cannot_be_given_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        codec_requirements((-1, 3), -1, **USUAL | options)


@pytest.mark.parametrize("target", [0.02, 0.09, 0.4])
def test_a_relative_error_is_met_on_states_that_the_fit_has_not_seen(target: float) -> None:
    sample = split_sample(segments())
    codec = fit_codec(CodecRequirement("klt", "rel", target), sample, None)
    found = relative_error(sample.held_back, codec.decode(codec.encode(sample.held_back)))
    assert 0.98 * target <= found <= target


@pytest.mark.parametrize("target", [1.5, 3.0])
def test_a_rate_is_met(target: float) -> None:
    found = fit_codec(
        CodecRequirement("klt", "bits", target), split_sample(segments(200)), None
    ).settings["found"]
    assert 0.98 * target <= found["bits_per_value"] <= target


def test_a_divergence_is_met_with_its_standard_error() -> None:
    def divergence(exact: Any, each: Any) -> list[KL]:
        return [KL(relative_error(exact, stored) ** 2, 0.0001) for stored in each]

    found = fit_codec(
        CodecRequirement("klt", "kl", 0.01), split_sample(segments()), divergence
    ).settings["found"]
    assert 0.97 * 0.01 <= found["kl"] + found["kl_error"] <= 0.01


@pytest.mark.parametrize(
    ("measure", "target", "said"),
    [
        ("bits", 1e-5, "more .* larger"),
        ("bits", 25, "less .* smaller"),
        ("rel", 1.5, "less .* smaller"),
    ],
)
def test_what_no_step_gives_is_refused_and_which_way_to_go_is_told(
    measure: Any, target: float, said: str
) -> None:
    with pytest.raises(InputError, match=f"every step gives {said}"):
        fit_codec(CodecRequirement("klt", measure, target), split_sample(segments()), None)


@pytest.mark.parametrize(("measure", "target"), [("rel", 1e-9), ("rel", 1e-5)])
def test_what_takes_as_much_as_an_exact_codec_is_refused(measure: Any, target: float) -> None:
    with pytest.raises(
        InputError,
        match=(
            f"{measure}={target:g} takes 16 bits a value or more, as many as bf16, which is exact"
        ),
    ):
        fit_codec(CodecRequirement("klt", measure, target), split_sample(segments()), None)


def test_a_measure_that_leaps_over_what_is_asked_ends_below_it() -> None:
    def divergence(exact: Any, each: Any) -> list[KL]:
        return [KL(0.001 if relative_error(exact, stored) < 0.1 else 5.0, 0.0) for stored in each]

    found = fit_codec(
        CodecRequirement("klt", "kl", 0.1), split_sample(segments()), divergence
    ).settings["found"]
    assert found["kl"] == 0.001
    assert 0.09 < found["relative_error"] < 0.1


@pytest.mark.parametrize("name", ["int8", "klt"])
def test_the_same_sample_gives_the_same_fit_byte_for_byte(name: str) -> None:
    asked = CodecRequirement(name, "rel" if name == "klt" else None, 0.1)
    assert fit_bytes(fit_codec(asked, split_sample(segments()), None)) == fit_bytes(
        fit_codec(asked, split_sample(segments()), None)
    )


@pytest.mark.parametrize("error", [0.01, 0.25, 1.0, 2.0])
def test_the_bound_of_a_white_source_is_half_the_logarithm_of_what_is_left(error: float) -> None:
    assert gaussian_bound(np.ones(64), 64 * error) == pytest.approx(
        max(0.0, -0.5 * np.log2(error)), abs=1e-9
    )

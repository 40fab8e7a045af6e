"""Codec options are parsed for each layer, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.codec_fit.options import CodecOptions
from pipeline.codec_fit.requirements import (
    CodecRequirement,
    codec_requirements,
    require_codec_options,
)
from pipeline.errors import InputError


def test_a_value_for_one_layer_overrides_that_for_all() -> None:
    requirements = codec_requirements(
        (-1, 0, 3),
        -1,
        CodecOptions(
            codec=("klt", "0:bf16"), fidelity=("rel=0.2", "-1:kl=0.02"), calibration_tokens=100
        ),
    )
    assert requirements == {
        -1: CodecRequirement("klt", "kl", 0.02, 100, 0),
        0: CodecRequirement("bf16"),
        3: CodecRequirement("klt", "rel", 0.2, 100, 0),
    }


def test_defaults_limit_the_divergence_of_the_last_layer_and_the_error_of_others() -> None:
    requirements = codec_requirements((-1, 3), -1, CodecOptions(codec=("klt",)))
    assert [(required.measure, required.target) for required in requirements.values()] == [
        ("kl", 0.01),
        ("rel", 0.09),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": ("mp3",)}, "no such codec"),
        ({"codec": ("klt", "int8")}, "given twice for all layers"),
        ({"codec": ("klt", "-1:klt", "-1:int8")}, "given twice for layer -1"),
        ({"codec": ("7:klt",)}, "'7' is none of the layers -1, 3"),
        ({"codec": ("int8",), "bits": ("3",)}, "layer -1: --bits is for --codec klt"),
        ({"codec": ("klt", "3:int8"), "bits": ("3:2",)}, "layer 3: --bits is for --codec klt"),
        ({"codec": ("klt",), "bits": ("16",)}, "choose fewer"),
        ({"codec": ("klt",), "fidelity": ("rel=0",)}, "'0' is not a number above 0"),
        ({"codec": ("klt",), "fidelity": ("rel=1",)}, "choose less than 1"),
        ({"codec": ("klt",), "fidelity": ("good",)}, "write kl=0.01"),
        ({"codec": ("klt",), "fidelity": ("rel=0.1",), "bits": ("3",)}, "exclude each other"),
    ],
)
def test_options_that_fit_no_teacher_are_refused_without_one(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        require_codec_options((-1, 3), CodecOptions(**options))
    with pytest.raises(InputError, match=message):
        codec_requirements((-1, 3), -1, CodecOptions(**options))


@pytest.mark.parametrize(
    ("last_layer", "message"),
    [(-1, "does not read layer 3; restrict it"), (None, "layer 3; use")],
)
def test_a_divergence_is_refused_for_layers_that_the_lm_head_does_not_read(
    last_layer: int | None, message: str
) -> None:
    options = CodecOptions(codec=("3:klt",), fidelity=("3:kl=0.01",))
    require_codec_options((-1, 3), options)
    with pytest.raises(InputError, match=message):
        codec_requirements((-1, 3), last_layer, options)


def test_doubling_the_error_saves_a_bit_and_doubling_the_divergence_half_a_bit() -> None:
    def bits(measure: Any, target: float) -> float:
        return CodecRequirement("klt", measure, target).expected_bits

    assert bits("rel", 0.05) - bits("rel", 0.1) == pytest.approx(1.0)
    assert bits("kl", 0.005) - bits("kl", 0.01) == pytest.approx(0.5)
    assert bits("bits", 3.0) == 3.0
    assert CodecRequirement("bf16").expected_bits == 16.0

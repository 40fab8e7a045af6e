"""Comparison of codecs: consistent figures, measured on data that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cache import CacheError, open_cache
from cache.upkeep.convert import convert_cache
from pipeline.codec_fit.requirements import PRESETS
from pipeline.errors import InputError
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.upkeep.compare_codecs import compare
from pipeline.upkeep.layer_fidelity import LayerFidelity
from pipeline.upkeep.recode import new_codecs
from pipeline.upkeep.settings import FidelitySettings, RecodeSettings
from tests.conftest import write_rows


@pytest.fixture(scope="module")
def compared(small_cache: Path) -> list[LayerFidelity]:
    return compare(
        FidelitySettings(
            cache=small_cache, tokens=2000, kl_tokens=500, calibration_tokens=2000, device="cpu"
        )
    )


def test_codecs_are_measured_on_examples_outside_the_calibration(
    compared: list[LayerFidelity], small_cache: Path
) -> None:
    assert [(layer.layer, layer.stored_as) for layer in compared] == [(-1, "bf16"), (0, "bf16")]
    with open_cache(small_cache) as cache:
        for layer in compared:
            assert (
                0
                < layer.calibration_examples
                < layer.calibration_examples + layer.measured_examples
                <= len(cache)
            )
    assert [layer.kl_tokens for layer in compared] == [500, 0]


def test_more_bits_mean_less_distortion(compared: list[LayerFidelity]) -> None:
    for layer in compared:
        points = [point for point in layer.points if point.codec == "klt"]
        assert len(points) >= 10
        for finer, coarser in pairwise(points):
            assert finer.bits_per_value > coarser.bits_per_value
            assert finer.relative_error < coarser.relative_error
            assert layer.layer == 0 or (finer.kl or 0) < (coarser.kl or 0) + (coarser.kl_error or 0)


def test_bf16_is_exact_and_no_codec_of_the_last_layer_is_below_the_bound(
    compared: list[LayerFidelity],
) -> None:
    last = compared[0]
    exact = last.points[0]
    assert (exact.codec, exact.bits_per_value, exact.relative_error, exact.bound_bits) == (
        "bf16",
        16.0,
        0.0,
        None,
    )
    assert exact.kl == pytest.approx(0, abs=1e-6)
    assert all(point.bits_per_value > (point.bound_bits or 0) for point in last.points)
    assert {point.codec for point in last.points} == {"bf16", "int8", "fp8 e4m3", "int4", "klt"}


def test_presets_reach_their_divergence(compared: list[LayerFidelity]) -> None:
    named = {point.setting: point for point in compared[0].points if "kl=" in point.setting}
    assert len(named) == 2
    for setting, point in named.items():
        target = float(setting.partition("kl=")[2])
        assert point.kl is not None
        assert point.kl < 2 * target  # 500 tokens of a small sample


def test_without_divergences_an_exact_cache_needs_no_teacher(
    small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr("pipeline.upkeep.compare_codecs.load_verified_teacher", never)
    (layer,) = compare(
        FidelitySettings(
            cache=small_cache, layer=-1, tokens=1000, calibration_tokens=1000, kl=False
        )
    )
    assert all(point.kl is None for point in layer.points)
    with pytest.raises(AssertionError, match="was loaded"):
        compare(FidelitySettings(cache=small_cache, layer=-1, tokens=1000, calibration_tokens=1000))


def test_duplicates_are_not_measured_and_an_unreachable_preset_is_left_out(
    embedded_settings: Callable[..., ExtractSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[object] = [
        {"question": f"What is {number}?", "answer": "A number."}
        for number in (1, 1, 1, 1, 1, 2, 3)
    ]
    settings = embedded_settings(dataset=str(write_rows(tmp_path / "rows.jsonl", rows)), limit=None)
    extract(prepare(settings))
    monkeypatch.setitem(PRESETS, "far", ("kl", 1e5))
    (layer,) = compare(
        FidelitySettings(
            cache=settings.cache,
            layer=-1,
            tokens=50,
            kl_tokens=50,
            calibration_tokens=20,
            device="cpu",
        )
    )
    assert layer.measured_tokens > 0
    assert layer.bound_is_low
    assert "far: kl=100000" in layer.unmet
    assert all("far" not in point.setting for point in layer.points)
    same = write_rows(tmp_path / "same.jsonl", [rows[0]] * 5)
    settings = embedded_settings(dataset=str(same), limit=None)
    extract(prepare(settings))
    with pytest.raises(CacheError, match=r"text that is not shared: 0; .* need at least 2"):
        compare(FidelitySettings(cache=settings.cache, kl=False))


def test_a_layer_that_the_lm_head_does_not_read_needs_no_teacher(
    small_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.upkeep.compare_codecs.load_verified_teacher", None)
    (layer,) = compare(
        FidelitySettings(cache=small_cache, layer=0, tokens=1000, calibration_tokens=1000)
    )
    assert layer.kl_tokens == 0


def test_the_distortion_of_a_lossy_cache_is_measured_against_the_teacher(
    small_cache: Path, tmp_path: Path
) -> None:
    codecs = new_codecs(small_cache, tmp_path / "c", RecodeSettings(codec=("-1:klt",), bits=("2",)))
    convert_cache(small_cache, tmp_path / "c", codecs=codecs)
    settings = FidelitySettings(
        cache=tmp_path / "c",
        layer=-1,
        tokens=1500,
        kl_tokens=300,
        calibration_tokens=1500,
        device="cpu",
    )
    (layer,) = compare(settings)
    stored = layer.points[-1]
    with open_cache(tmp_path / "c") as cache:
        assert (stored.codec, stored.setting) == ("klt", "as stored in this cache")
        assert stored.bits_per_value == pytest.approx(cache.bits_per_value[-1], abs=1e-4)
        assert stored.relative_error == pytest.approx(
            cache.codecs[-1].settings["found"]["relative_error"], rel=0.2
        )


def test_unknown_layers_and_single_examples_are_refused(
    small_cache: Path, embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--layer 3: not in the cache; choose one of -1, 0"):
        compare(FidelitySettings(cache=small_cache, layer=3))
    alone = embedded_settings(limit=1)
    extract(prepare(alone))
    with pytest.raises(CacheError, match=r"text that is not shared: 1; .* need at least 2"):
        compare(FidelitySettings(cache=alone.cache))

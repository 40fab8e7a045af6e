"""The plan before the run tells what the run then finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from pipeline.extract.forecast import forecast
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from tests.conftest import write_rows

Make = Callable[..., ExtractSettings]


@pytest.mark.parametrize("layers", [(-1,), (0, 2, -1)])
def test_bytes_are_foretold_exactly_and_nothing_is_written(
    layers: tuple[int, ...], embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(limit=30, layers=layers, cache=tmp_path / "c")
    expected = forecast(prepare(settings))
    assert list(tmp_path.iterdir()) == []
    assert expected.tokens_per_second is not None
    assert expected.tokens_per_second > 0
    assert expected.seconds == round(expected.stored_tokens / expected.tokens_per_second, 1)
    for name in CONTAINER_NAMES:
        made = replace(settings, cache=tmp_path / name, format=name)
        result = extract(prepare(made))
        assert expected.bytes[name]["bf16"] == result.bytes
        assert (expected.examples, expected.tokens, expected.shards) == (
            result.examples,
            result.tokens,
            result.shards,
        )
    everything = sum(
        file.stat().st_size for file in (tmp_path / "zarr").rglob("*") if file.is_file()
    )
    assert everything <= expected.needed_bytes


@pytest.mark.parametrize("codec", ["int8", "klt"])
def test_the_calibration_sample_takes_time_and_a_fit_of_fixed_rate_no_more_than_foretold(
    codec: str, embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(
        limit=30, cache=tmp_path / "c", codec=(codec,), calibration_tokens=1000
    )
    expected = forecast(prepare(settings))
    assert expected.tokens_per_second is not None
    assert expected.seconds == round(
        (expected.stored_tokens + 1000) / expected.tokens_per_second, 1
    )
    result = extract(prepare(settings))
    shards = sum(record.bytes for record in open_cache(settings.cache).records)
    assert result.bytes > shards  # the fits, too
    if codec == "int8":
        assert expected.bytes["zarr"]["int8"] == shards


def test_codecs_that_differ_from_layer_to_layer_are_foretold(
    embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(
        limit=30, cache=tmp_path / "c", codec=("-1:int8",), calibration_tokens=1000
    )
    expected = forecast(prepare(settings))
    extract(prepare(settings))
    cache = open_cache(settings.cache)
    assert expected.bytes["zarr"][cache.manifest.codec] == sum(
        record.bytes for record in cache.records
    )
    assert expected.approximate == ["klt"]
    assert forecast(
        prepare(replace(settings, cache=tmp_path / "d", codec=("-1:klt",)))
    ).approximate == ["klt", "-1:klt,0:bf16"]


def test_what_will_be_left_out_is_counted(embedded_settings: Make, tmp_path: Path) -> None:
    rows = [{"question": "Q " * n, "answer": "A"} for n in (1, 2, 200)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, {"question": "Q"}])
    settings = embedded_settings(dataset=str(path), max_tokens=100, skip_bad_rows=True, limit=None)
    assert forecast(prepare(settings)).left_out == {"over 100 tokens": 1, "malformed": 1}


def test_of_a_finished_cache_nothing_is_left_to_do(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=10)
    extract(prepare(settings))
    monkeypatch.setattr("pipeline.extract.forecast.load_teacher", None)
    expected = forecast(prepare(settings))
    assert (
        expected.missing_shards,
        expected.needed_bytes,
        expected.seconds,
        expected.tokens_per_second,
    ) == (0, 0, 0.0, None)
    with pytest.raises(CacheError, match="template was"):
        forecast(prepare(replace(settings, template="chat")))


def test_an_extract_that_the_disk_cannot_hold_does_not_begin(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=10)
    monkeypatch.setattr("cache.upkeep.space.free_bytes", lambda path: 1_000_000)
    monkeypatch.setattr("pipeline.extract.forecast.free_bytes", lambda path: 1_000_000)
    assert not forecast(prepare(settings)).fits
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", None)
    with pytest.raises(
        CacheError, match=r"17\.\d\d MB more are needed, its disk has 1\.00 MB free"
    ):
        extract(prepare(settings))
    assert not settings.cache.exists()

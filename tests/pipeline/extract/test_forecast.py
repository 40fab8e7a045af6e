"""The forecast agrees with the extract that follows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache import CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import scan_journal
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.errors import InputError
from pipeline.extract.forecast import forecast
from pipeline.extract.padded_batch import read_batch
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.speed_probe import SpeedProbe, probe_speed
from pipeline.teacher.model import Teacher
from tests.conftest import write_rows
from tests.pipeline.recorded_progress import InterruptAfterShard

Make = Callable[..., ExtractSettings]


@pytest.mark.parametrize("layers", [(-1,), (0, 2, -1)])
def test_bytes_are_exact_and_nothing_is_written(
    layers: tuple[int, ...], embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(limit=30, layers=layers, cache=tmp_path / "c")
    expected = forecast(prepare(settings))
    assert list(tmp_path.iterdir()) == []
    for name in CONTAINER_NAMES:
        result = extract(prepare(replace(settings, cache=tmp_path / name, format=name)))
        assert expected.bytes[name]["bf16"] == result.bytes
        assert (expected.examples, expected.tokens, expected.stored_tokens, expected.shards) == (
            result.examples,
            result.tokens,
            result.stored_tokens,
            result.shards,
        )
    files = [file for file in (tmp_path / "zarr").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= expected.needed_bytes


def test_bytes_of_a_codec_with_a_fixed_rate_are_exact_without_its_fit(
    embedded_settings: Make,
) -> None:
    settings = embedded_settings(limit=30, codec=("int8",), calibration_tokens=1000)
    expected = forecast(prepare(settings))
    result = extract(prepare(settings))
    shards = sum(record.bytes for record in open_cache(settings.cache).records)
    assert expected.bytes["zarr"]["int8"] == shards < result.bytes


def test_bytes_of_codecs_that_differ_per_layer_are_exact(
    embedded_settings: Make, tmp_path: Path
) -> None:
    settings = embedded_settings(limit=30, codec=("-1:int8",), calibration_tokens=1000)
    expected = forecast(prepare(settings))
    extract(prepare(settings))
    cache = open_cache(settings.cache)
    shards = sum(record.bytes for record in cache.records)
    assert expected.bytes["zarr"][cache.manifest.codec] == shards
    assert expected.approximate == ["klt"]
    per_layer = replace(settings, cache=tmp_path / "d", codec=("-1:klt",))
    assert forecast(prepare(per_layer)).approximate == ["klt", "-1:klt,0:bf16"]


def tokenised(tmp_path: Path, *rows: list[int]) -> str:
    """Write rows of token ids, all of them learned."""
    fields = [{"input_ids": row, "loss_mask": [1] * len(row)} for row in rows]
    return str(write_rows(tmp_path / "tokens.jsonl", fields))


TEN, TWENTY, THIRTY = [5] * 10, [6] * 20, [7] * 30


@pytest.fixture
def ten_tokens_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object) -> SpeedProbe:
        return SpeedProbe(load_seconds=2.5, tokens=80, tokens_per_second=10.0)

    monkeypatch.setattr("pipeline.extract.forecast.probe_speed", probe)


@pytest.mark.usefixtures("ten_tokens_per_second")
@pytest.mark.parametrize(
    ("rows", "options", "seconds"),
    [
        ([TEN, TWENTY, THIRTY], {}, 6.0),
        ([TEN], {}, 1.0),
        ([TWENTY, THIRTY], {}, 5.0),
        ([TEN, TWENTY, THIRTY, THIRTY, THIRTY], {}, 6.0),
        ([TEN, TWENTY, THIRTY, THIRTY, THIRTY], {"sharing": False}, 12.0),
        ([TEN, TWENTY, THIRTY], {"codec": ("int8",), "calibration_tokens": 25}, 8.5),
        ([TEN, TWENTY, THIRTY], {"codec": ("int8",), "calibration_tokens": 1000}, 12.0),
    ],
    ids=[
        "all",
        "one row",
        "the other rows",
        "duplicates once",
        "duplicates without sharing",
        "calibration sample",
        "calibration on all tokens",
    ],
)
def test_the_pass_takes_the_stored_tokens_and_the_calibration_sample_at_the_measured_speed(
    rows: list[list[int]],
    options: dict[str, Any],
    seconds: float,
    embedded_settings: Make,
    tmp_path: Path,
) -> None:
    settings = embedded_settings(dataset=tokenised(tmp_path, *rows), limit=None, **options)
    expected = forecast(prepare(settings))
    assert (expected.seconds, expected.tokens_per_second) == (seconds, 10.0)
    assert (expected.load_seconds, expected.probe_tokens) == (2.5, 80)


@pytest.mark.usefixtures("ten_tokens_per_second")
def test_a_resumed_pass_takes_the_missing_shards_alone(
    embedded_settings: Make, tmp_path: Path
) -> None:
    dataset = tokenised(tmp_path, TEN, TWENTY, THIRTY)
    settings = embedded_settings(dataset=dataset, limit=None, shard_tokens=1)
    with pytest.raises(KeyboardInterrupt):
        extract(prepare(settings), InterruptAfterShard())
    resumed = forecast(prepare(settings))
    published = [record.stored_tokens for record in scan_journal(settings.cache).records.values()]
    assert 0 < len(published) < 3
    assert resumed.missing_shards == 3 - len(published)
    assert resumed.seconds == (60 - sum(published)) / 10


def test_the_probe_alternates_long_and_short_batches(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prepare(embedded_settings(limit=30, batch_tokens=300))
    examples, batches = plan.dataset.examples, list[list[int]]()

    def recorded(teacher: Teacher, rows: list[TokenizedExample]) -> list[Any]:
        batches.append([len(row) for row in rows])
        return read_batch(teacher, rows)

    monkeypatch.setattr("pipeline.extract.speed_probe.read_batch", recorded)
    probe = probe_speed(plan, examples)
    assert probe.tokens_per_second > 0
    assert probe.tokens == sum(map(sum, batches[1:]))  # the first batch only warms up
    longest = [max(batch) for batch in batches[1:]]
    assert longest[0] == max(map(len, examples))
    assert longest[0] > longest[2] > longest[3] > longest[1]


def test_an_unknown_device_is_refused_without_a_probe(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.extract.speed_probe.load_teacher", None)
    with pytest.raises(InputError, match="--device abacus: not usable on this machine"):
        forecast(prepare(embedded_settings(limit=10, device="abacus")))


def test_rows_that_will_be_left_out_are_counted(embedded_settings: Make, tmp_path: Path) -> None:
    rows = [{"question": "Q " * n, "answer": "A"} for n in (1, 2, 200)]
    path = write_rows(tmp_path / "rows.jsonl", [*rows, {"question": "Q"}])
    settings = embedded_settings(dataset=str(path), max_tokens=100, skip_bad_rows=True, limit=None)
    assert forecast(prepare(settings)).left_out == {"over 100 tokens": 1, "malformed": 1}


def test_a_finished_cache_needs_nothing(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=10)
    extract(prepare(settings))
    monkeypatch.setattr("pipeline.extract.speed_probe.load_teacher", None)
    expected = forecast(prepare(settings))
    assert (expected.missing_shards, expected.needed_bytes, expected.seconds) == (0, 0, 0.0)
    assert (expected.tokens_per_second, expected.load_seconds) == (None, None)
    with pytest.raises(CacheError, match="template was"):
        forecast(prepare(replace(settings, template="chat")))


def test_an_extract_that_does_not_fit_on_the_disk_does_not_start(
    embedded_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = embedded_settings(limit=10)
    monkeypatch.setattr("cache.upkeep.space.free_bytes", lambda path: 1_000_000)
    monkeypatch.setattr("pipeline.extract.forecast.free_bytes", lambda path: 1_000_000)
    assert not forecast(prepare(settings)).fits
    monkeypatch.setattr("pipeline.extract.worker.load_teacher", None)
    message = r"17\.\d\d MB more are needed, its disk has 1\.00 MB free"
    with pytest.raises(CacheError, match=message):
        extract(prepare(settings))
    assert not settings.cache.exists()


def test_a_very_slow_teacher_still_has_a_forecast() -> None:
    assert SpeedProbe(load_seconds=1.0, tokens=1, tokens_per_second=0.02).seconds(10) == 500.0

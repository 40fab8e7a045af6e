"""The folder of a run: its record is read as written, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunRecord
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train


@pytest.fixture(scope="module")
def record(small_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    run = tmp_path_factory.mktemp("run") / "run"
    return train(TrainSettings(cache=small_cache, run=run, max_steps=1, device="cpu"))


def read(content: dict[str, Any], folder: Path) -> RunRecord:
    (folder / "run.json").write_text(json.dumps(content))
    return RunFolder(folder).read_record()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"run\.json: damaged \(.*train again"),
        ("[]", "not a run's record"),
        ('{"finished": true}', "not a run's record"),
        ('{"settings": {"cache": "c"}}', "settings: without run"),
        ('{"settings": {"cache": "c", "run": "r"}}', "without identity"),
    ],
)
def test_damaged_records_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=message):
        RunFolder(tmp_path).read_record()


def test_a_record_is_read_as_written(record: RunRecord, tmp_path: Path) -> None:
    RunFolder(tmp_path).write_record(record)
    assert RunFolder(tmp_path).read_record() == record


def test_settings_missing_in_an_earlier_version_get_their_defaults(
    record: RunRecord, tmp_path: Path
) -> None:
    content = record.to_json()
    del content["settings"]["epochs"]
    assert read(content, tmp_path).settings.epochs == 15


def test_unknown_fields_of_a_newer_version_are_refused_by_name(
    record: RunRecord, tmp_path: Path
) -> None:
    content = record.to_json()
    content["settings"] |= {"momentum": 0.5, "nesterov": 3}
    message = r"settings: unknown to this version of the program: momentum, nesterov; update"
    with pytest.raises(InputError, match=message):
        read(content, tmp_path)


def test_an_unknown_choice_of_a_newer_version_is_refused_by_name(
    record: RunRecord, tmp_path: Path
) -> None:
    content = record.to_json()
    content["settings"]["condition"] = "visual"
    message = "settings.condition: 'visual' is not one of sequence, prompt, none, text; update"
    with pytest.raises(InputError, match=message):
        read(content, tmp_path)


def test_a_finished_run_without_result_is_damaged(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without result"):
        read(record.to_json() | {"result": None}, tmp_path)


def test_a_newer_format_is_refused(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has version 3, and this program reads up to 2; update"):
        read(record.to_json() | {"version": 3}, tmp_path)


def test_a_cache_is_not_a_run(small_cache: Path) -> None:
    with pytest.raises(InputError, match="is a cache, not a run"):
        RunFolder(small_cache).read_record()


def test_an_incomplete_last_line_of_the_metrics_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in RunFolder(tmp_path).read_metrics()] == [1, 2]

"""A run's record is read, or what is wrong with it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.run import train


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"run\.json: damaged \(.*train again"),
        ("[]", "not a run's record"),
        ('{"finished": true}', "not a run's record"),
    ],
)
def test_what_is_no_record_is_said_so(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=said):
        RunFolder(tmp_path).read_record()


def test_a_run_of_another_version_is_said_so(small_cache: Path, tmp_path: Path) -> None:
    record = train(TrainSettings(small_cache, tmp_path / "run", max_steps=1, device="cpu"))
    del record["settings"]["epochs"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="another version of this program"):
        RunFolder(tmp_path).read_record()


def test_a_cache_is_no_run(small_cache: Path) -> None:
    with pytest.raises(InputError, match="is a cache, and no run"):
        RunFolder(small_cache).read_record()


def test_lines_of_metrics_that_a_kill_has_cut_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [line["step"] for line in RunFolder(tmp_path).read_metrics()] == [1, 2]

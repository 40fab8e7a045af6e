"""A run that version 0.1 trained is read, evaluated and extended.

`tests/fixtures/run-0.1` was written once, by the code of version 0.1:

- `teacher`: Qwen2 with random weights, 16 wide, 1 block, and a tokenizer of bytes.
- `rows.jsonl`: 20 sums, such as `1 + 2?` with the answer `1 + 2 = 3`.
- `cache`: `extract --layers -1,0 --template chat --format hdf5 --dtype fp32`.
- `run`: `train --controls` with the options in `run/train.yaml`. The student is a GPT-Neo with
  random weights, 8 wide, 1 block. Then `evaluate --samples 4 --max-new-tokens 12`.

Checkpoints, plots, reports and TensorBoard files were removed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.results import EvaluationResults
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.json_dataclasses import to_json
from pipeline.option import with_current_names
from pipeline.runs.comparisons import comparison_settings
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from tests.conftest import ROOT, RunCli

STORED = ROOT / "tests" / "fixtures" / "run-0.1"
RECORD: dict[str, Any] = json.loads((STORED / "run" / "run.json").read_text())
RESULTS: dict[str, Any] = json.loads((STORED / "run" / "evaluation" / "results.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(STORED / "run", tmp_path / "run")


def test_the_record_is_read() -> None:
    record = RunFolder(STORED / "run").require_finished()
    assert RECORD["companions"] == ["layer-0", "no-teacher"]
    assert record.comparisons == ("layer-0", "no-teacher")
    written = record.to_json()
    for name in ("identity", "provenance", "environment", "leaks", "left_out"):
        assert written[name] == RECORD[name]
    stored = with_current_names(RECORD["settings"])
    assert {name: written["settings"][name] for name in stored} == stored
    added = {name: item for name, item in written["settings"].items() if name not in stored}
    defaults = {field.name: to_json(field.default) for field in fields(TrainSettings)}
    assert added == {name: defaults[name] for name in added}
    assert written["result"] == RECORD["result"] | {"weights_in_memory": {}, "layer_weights": {}}


def test_comparison_runs_are_found_in_their_old_folder() -> None:
    runs = RunFolder(STORED / "run").comparisons()
    assert {name: run.root for name, run in runs.items()} == {
        name: STORED / "run" / "companions" / name for name in ("layer-0", "no-teacher")
    }
    assert runs["layer-0"].settings().layers == (0,)
    assert runs["no-teacher"].settings().condition == "none"
    assert RunFolder(STORED / "run").curves().keys() == {"student", "layer-0", "no-teacher"}


def test_a_new_comparison_run_is_stored_with_the_old_ones(run: Path) -> None:
    folder = RunFolder(run)
    record = folder.read_record()
    folder.write_record(record.with_comparisons(["bidirectional"]))
    assert "companions" not in json.loads((run / "run.json").read_text())
    settings = comparison_settings(replace(record.settings, run=run), "bidirectional", steps=1)
    shutil.copytree(run / "companions" / "layer-0", settings.run)
    assert list(folder.comparisons()) == ["layer-0", "no-teacher", "bidirectional"]


def test_the_run_evaluates_to_the_stored_results(run: Path) -> None:
    results = evaluate(
        EvaluateSettings(
            run=run,
            cache=STORED / "cache",
            teacher=str(STORED / "teacher"),
            samples=4,
            max_new_tokens=12,
            device="cpu",
        )
    )
    stored = EvaluationResults.from_json(RESULTS)
    assert [student.name for student in results.students] == ["student", "layer-0", "no-teacher"]
    for student, expected in zip(results.students, stored.students, strict=True):
        assert student.val_loss == pytest.approx(expected.val_loss, rel=1e-4)
        assert student.ablations == (
            expected.ablations and pytest.approx(expected.ablations, rel=1e-4)
        )
        assert student.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-4)
    assert results.samples == stored.samples


def test_stored_results_can_be_compared(run: Path, run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli(
        "evaluate", "--compare", STORED / "run", run, "--out", tmp_path / "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert [row["name"] for row in group["rows"]] == ["student", "layer-0", "no-teacher"]
    loss = group["rows"][0]["figures"]["val_loss"]
    assert loss["mean"] == RESULTS["students"][0]["val_loss"]


def test_a_student_generates(run_cli: RunCli) -> None:
    (sample,) = (sample for sample in RESULTS["samples"] if sample["prompt"] == "4 + 1?")
    done = run_cli(
        *("generate", "--run", STORED / "run", "--teacher", STORED / "teacher", "--json"),
        *("--prompt", sample["prompt"], "--max-new-tokens", 12, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == sample["answers"]["student"]

"""Results of all controls and baselines, in results.json and on stdout."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.runs.comparisons import BASELINES
from pipeline.runs.folder import RunFolder
from tests.conftest import RunCli
from tests.pipeline.evaluation.conftest import WholeEvaluation

CONTROLS = ["layer-0", "layer-2", "no-teacher", "random-teacher"]
NAMES = ["student", *CONTROLS, *BASELINES, "teacher"]


def test_stdout_has_all_results(whole: WholeEvaluation) -> None:
    lines = whole.stdout.splitlines()
    for name in NAMES:
        assert any(name in line for line in lines), name
    leak = whole.students["bidirectional"]["leak"]
    assert (
        f"bidirectional, leak: loss {leak['reported']:.4f} as reported, {leak['causal']:.4f}"
        " with causal attention" in lines
    )
    for task, metrics in whole.students["student"]["tasks"].items():
        figures = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        assert f"task {task}: {figures}" in lines
    assert whole.results["verdict"] in lines
    for what, reason in whole.results["not_measured"].items():
        assert f"not measured: {what}: {reason}" in lines
    assert lines[-1] == f"report: {whole.run / 'evaluation' / 'report.html'}"


def test_every_control_and_baseline_is_measured(whole: WholeEvaluation) -> None:
    students = whole.students
    assert list(students) == NAMES
    assert RunFolder(whole.run).comparisons().keys() == {*NAMES} - {"student", "teacher"}
    kinds = {student["kind"] for student in students.values()}
    assert kinds == {"student", "control", "layer", "baseline"}
    for name, student in students.items():
        assert student["bits_a_byte"] > 0
        assert 0 <= student["exact_match_interval"][0] <= student["exact_match"]
        assert name == "teacher" or student["peak_memory"]["host_bytes"] > 1e7
    assert whole.results["not_measured"] == {
        "answers": "none ended within 24 tokens; raise --max-new-tokens"
    }


def test_comparison_runs_take_the_students_steps(whole: WholeEvaluation) -> None:
    students = whole.students
    steps, tokens = students["student"]["steps"], students["student"]["tokens"]
    for name in (*CONTROLS, "distilled", "bidirectional"):
        assert (students[name]["steps"], students[name]["tokens"]) == (steps, tokens)
    for name in ("fine-tuned", "scratch"):  # read tokens of their own
        assert students[name]["steps"] == steps
    untouched = students["untouched"]
    assert (untouched["steps"], untouched["training_flops"]) == (0, 0)


def test_losses_rank_as_expected(whole: WholeEvaluation) -> None:
    losses = {name: student["val_loss"] for name, student in whole.students.items()}
    assert losses["teacher"] < 0.05 and losses["student"] < losses["layer-0"]
    assert losses["fine-tuned"] < losses["scratch"] < losses["untouched"]


def test_bits_per_byte_are_proportional_to_the_loss_on_the_same_tokens(
    whole: WholeEvaluation,
) -> None:
    ratios = [
        whole.students[name]["bits_a_byte"] / whole.students[name]["val_loss"]
        for name in ("student", "layer-0", "distilled", "teacher")
    ]
    assert ratios == pytest.approx([ratios[0]] * 4)


def test_the_cost_of_extraction_is_reported(whole: WholeEvaluation) -> None:
    assert 2e6 < whole.results["extract"]["flops_a_token"] < 4e6
    assert whole.results["extract"]["stored_tokens"] > 1000


def test_the_leak_is_the_loss_added_by_causal_attention(whole: WholeEvaluation) -> None:
    leaking = whole.students["bidirectional"]
    leak = leaking["leak"]
    assert leaking["leaks"] and leak["reported"] == leaking["val_loss"]
    assert leak["leaked"] == leak["causal"] - leak["reported"] != 0
    assert "leak" not in whole.students["student"]
    assert "bidirectional" not in whole.results["verdict"]


def test_a_failing_task_or_teacher_is_reported_and_the_rest_is_measured(
    controlled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise InputError("no room for this prompt")

    monkeypatch.setattr(HarnessTasks, "run", fails)
    monkeypatch.setattr(HarnessTasks, "__init__", lambda *_: None)
    monkeypatch.setattr(HarnessTasks, "__bool__", lambda _: True)
    monkeypatch.setattr("pipeline.evaluation.run.TeacherAlone", fails)
    run = shutil.copytree(controlled_run, tmp_path / "run")
    settings = EvaluateSettings(
        run=run, samples=0, baselines=("teacher",), tasks=("any",), device="cpu"
    )
    results = evaluate(settings)
    reason = "no room for this prompt"
    assert results.not_measured == {"tasks": reason, "teacher": reason}
    names = [student.name for student in results.students]
    assert names == ["student", *RunFolder(run).finished_comparisons()]


def test_relocated_caches_and_teachers_give_the_same_losses(
    whole: WholeEvaluation, tmp_path: Path
) -> None:
    moved = shutil.copytree(whole.run, tmp_path / "run")
    control = RunFolder(moved / "comparisons/random-teacher")
    record = control.read_record()
    gone = replace(record.settings, cache=str(tmp_path / "gone"))
    control.write_record(replace(record, settings=gone))
    with pytest.raises(
        InputError, match="gone: no cache here; pass its present location as --random-teacher"
    ):
        evaluate(EvaluateSettings(run=moved, samples=0, device="cpu"))
    results = evaluate(
        EvaluateSettings(
            run=moved,
            samples=1,
            max_new_tokens=2,
            random_teacher=record.settings.cache,
            teacher=str(shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")),
            device="cpu",
        )
    )
    for student in results.students:
        expected = whole.students[student.name]["val_loss"]
        assert student.val_loss == pytest.approx(expected), student.name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--compare"], "--compare: name at least two evaluated runs"),
        (["--compare", "RUN", "RUN"], "a run is named twice"),
        (
            ["--compare", "RUN", "RUN/comparisons/layer-0"],
            "not evaluated yet; evaluate it first: evaluate --run",
        ),
        ([], "name one run with --run"),
        (["--run", "RUN", "RUN"], "name one run with --run"),
        (
            ["--run", "RUN", "--baselines", "nobody"],
            f"--baselines nobody: unknown; choose from teacher, {', '.join(BASELINES)}, or all",
        ),
        (
            ["--run", "RUN/comparisons/no-teacher", "--baselines", "distilled"],
            "a student of --condition none reads no teacher",
        ),
    ],
)
def test_wrong_options_are_refused_with_a_reason(
    arguments: list[str], problem: str, controlled_run: Path, run_cli: RunCli
) -> None:
    words = [word.replace("RUN", str(controlled_run)) for word in arguments]
    done = run_cli("evaluate", *words)
    assert done.returncode == 2
    assert problem in done.stderr

"""An evaluation of a student and its controls, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commands.running.baselines import train_baselines
from pipeline.data.split import split_rows
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.evaluation.results import EvaluationResults
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from tests.conftest import RunCli, write_rows


@pytest.fixture(scope="module")
def results(trained_run: Path) -> EvaluationResults:
    return evaluate(EvaluateSettings(run=trained_run, samples=4, max_new_tokens=24, device="cpu"))


def test_results_are_written_as_returned(trained_run: Path) -> None:
    results = evaluate(EvaluateSettings(run=trained_run, samples=0, device="cpu"))
    content = json.loads((trained_run / "evaluation/results.json").read_text())
    assert content == results.to_json()
    assert EvaluationResults.from_json(content) == results


def test_the_loss_is_that_of_training(results: EvaluationResults, trained_run: Path) -> None:
    metrics = RunFolder(trained_run).read_metrics()
    losses = [line["val_loss"] for line in metrics if "val_loss" in line]
    assert results.student.val_loss == pytest.approx(min(losses), abs=1e-5)


def test_figures_of_the_student_and_its_controls_are_in_range(results: EvaluationResults) -> None:
    assert [student.name for student in results.students] == ["student", *CONTROLS]
    assert len(results.samples) == 4
    for student in results.students:
        assert student.perplexity == pytest.approx(math.exp(student.val_loss), rel=1e-6)
        form, stopped = student.thought_solution_form, student.stopped
        for share in (student.exact_match, form, stopped, student.repetition):
            assert share is not None and 0 <= share <= 1
        assert student.val_loss_interval is None  # of four rows
        forward_and_backward = 2 * 3 * student.tokens * 100_000  # of the tiny GPT-Neo
        assert student.training_flops > forward_and_backward


def test_the_transfer_score_is_the_relative_reduction_of_loss(results: EvaluationResults) -> None:
    student, *controls = results.students
    for control in controls:
        relative_loss = student.val_loss / control.val_loss
        assert control.transfer is not None and control.bits_per_byte is not None
        assert control.transfer.score == pytest.approx(1 - relative_loss, abs=1e-6)
        assert control.transfer.rows == results.validation_examples
        assert student.bits_per_byte == pytest.approx(control.bits_per_byte * relative_loss)


def test_every_ablation_changes_the_loss(results: EvaluationResults) -> None:
    student, _, no_teacher = results.students
    ablations = student.ablations
    assert ablations is not None
    assert ablations.keys() == {"matched", "mismatched", "shuffled", "zeroed", "gates shut"}
    assert len(set(ablations.values())) == 5
    assert no_teacher.ablations is None


def test_another_data_set_can_be_answered(trained_run: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "What is 3 + 4?", "answer": "#### 7"}])
    results = evaluate(
        EvaluateSettings(run=trained_run, dataset=str(rows), max_new_tokens=8, device="cpu")
    )
    assert results.prompts == 1
    assert results.samples[0].prompt == "What is 3 + 4?"


def test_other_weights_of_the_teacher_are_refused(trained_run: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "teacher")
    weights = bytearray((teacher / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (teacher / "model.safetensors").write_bytes(weights)
    with pytest.raises(InputError, match="teacher_weights is"):
        evaluate(EvaluateSettings(run=trained_run, teacher=str(teacher), samples=2, device="cpu"))


def test_a_relocated_teacher_is_accepted(trained_run: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(EMBEDDED_TEACHER, tmp_path / "moved")
    results = evaluate(
        EvaluateSettings(
            run=trained_run, teacher=str(teacher), samples=2, max_new_tokens=4, device="cpu"
        )
    )
    assert results.prompts == 2


def test_a_cache_of_other_content_is_refused(trained_run: Path, tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(trained_run, tmp_path / "other"))
    record = other.read_record()
    identity = replace(record.identity, content_digest="0" * 64)
    other.write_record(replace(record, identity=identity))
    with pytest.raises(InputError, match="content_digest was"):
        evaluate(EvaluateSettings(run=other.root, samples=0, device="cpu"))


def test_training_rows_are_not_answered_whatever_file_they_are_in(
    trained_run: Path, tmp_path: Path
) -> None:
    copy = shutil.copy(EMBEDDED_DATASET, tmp_path / "copy.jsonl")
    results = evaluate(
        EvaluateSettings(
            run=trained_run, dataset=str(copy), samples=6, max_new_tokens=4, device="cpu"
        )
    )
    training, held_out = split_rows([str(row) for row in range(40)], validation=0.1, seed=0)
    answered = [int(sample.row_id) for sample in results.samples]
    assert not set(answered) & set(training)
    assert answered == [*held_out, 40, 41][:6]
    assert results.prompts_left_out == {"was trained on": 36}


def test_prompts_that_are_too_long_are_counted(trained_run: Path, tmp_path: Path) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"question": "word " * 3000, "answer": "1"}, {"question": "3 + 4?", "answer": "7"}],
    )
    results = evaluate(
        EvaluateSettings(run=trained_run, dataset=str(rows), max_new_tokens=4, device="cpu")
    )
    assert results.prompts == 1
    assert sum(results.prompts_left_out.values()) == 1


def test_an_unfinished_control_is_named(trained_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    shutil.rmtree(run / "comparisons/no-teacher")
    with pytest.raises(InputError, match="no-teacher is not finished"):
        evaluate(EvaluateSettings(run=run, samples=0, device="cpu"))


def test_prompts_are_read_before_a_baseline_is_trained(trained_run: Path) -> None:
    settings = EvaluateSettings(
        run=trained_run, dataset="nowhere.jsonl", baselines=("scratch",), device="cpu"
    )
    with pytest.raises(InputError, match="nowhere"):
        train_baselines(settings)
    assert not (trained_run / "comparisons/scratch").exists()


def test_an_untrained_baseline_is_refused(trained_run: Path) -> None:
    settings = EvaluateSettings(run=trained_run, baselines=("scratch",), samples=0, device="cpu")
    with pytest.raises(InputError, match="baseline scratch is not trained"):
        evaluate(settings)


def test_evaluate_prints_a_table(trained_run: Path, run_cli: RunCli) -> None:
    done = run_cli("evaluate", "--run", trained_run, "--samples", 2, "--max-new-tokens", 8)
    assert done.returncode == 0, done.stderr
    for text in ("student", "layer-0", "no-teacher", "gates shut", "report.html"):
        assert text in done.stdout

"""The verdict follows the results."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.evaluation.results import AnswerScore, ScoreDescription, StudentResult, TransferScore
from pipeline.evaluation.verdict import verdict

SCORE = ScoreDescription(name="math", why="", definition="", graded=False, scored=10, not_scored=0)


def result(
    name: str, loss: float, right: float, *, low: float = 0.1, score: float = 0.5
) -> StudentResult:
    return StudentResult(
        name=name,
        kind="student" if name == "student" else "control",
        about="",
        reads="",
        condition="sequence",
        leaks=False,
        val_loss=loss,
        perplexity=1.0,
        score=AnswerScore(value=right, interval=None),
        transfer=TransferScore(score=score, interval=(low, 0.9), rows=20),
    )


STUDENT, CONTROL = result("student", 0.1, 0.9), result("control", 0.5, 0.1)


def test_transfer_takes_intervals_above_zero_for_every_control() -> None:
    unsure = result("unsure", 0.5, 0.1, low=-0.01, score=0.9)
    assert verdict([STUDENT, CONTROL], SCORE).startswith("Transferred: ")
    for controls in ([CONTROL, unsure], [unsure, CONTROL]):
        sentence = verdict([STUDENT, *controls], SCORE)
        assert sentence.startswith("No transfer shown: ")
        assert sentence.endswith("relative to unsure.")


def test_layers_and_baselines_do_not_decide() -> None:
    layer = replace(result("layer-12", 0.09, 0.9, low=-0.5), kind="layer")
    teacher = replace(result("teacher", 0.01, 1.0), kind="baseline", transfer=None)
    assert verdict([STUDENT, CONTROL, layer, teacher], SCORE).startswith("Transferred: ")


def test_without_intervals_or_controls_there_is_no_verdict() -> None:
    few = replace(CONTROL, transfer=TransferScore(score=0.9, interval=None, rows=4))
    assert verdict([STUDENT, few], SCORE).startswith("No verdict: ")
    assert "too few rows are held out" in verdict([STUDENT, few], SCORE)
    assert "--controls" in verdict([STUDENT], SCORE)


@pytest.mark.parametrize("right", [0.1, 0.05])
def test_answers_no_better_than_a_controls_are_transfer_in_loss_alone(right: float) -> None:
    student = result("student", 0.1, right)
    assert verdict([student, CONTROL], SCORE).startswith("Transferred in loss alone: ")


@pytest.mark.parametrize(
    ("mismatched", "finding"), [(0.2, "Transferred: "), (0.1, "No transfer shown: ")]
)
def test_a_student_of_prompts_has_to_need_the_states_of_its_own_prompt(
    mismatched: float, finding: str
) -> None:
    ablations = {"matched": 0.1, "mismatched": mismatched, "shuffled": 0.1, "zeroed": 0.9}
    student = replace(STUDENT, condition="prompt", ablations=ablations)
    assert verdict([student, CONTROL], SCORE).startswith(finding)


def test_a_leaking_student_gets_no_finding() -> None:
    leaking = replace(STUDENT, leaks=True)
    assert verdict([leaking, CONTROL], SCORE).startswith("Leaking attention")

"""Scores of an evaluation: the choice, the reported figures, and refused functions."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.conversations import Conversation, Turn
from pipeline.errors import InputError
from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.losses import mean_interval
from pipeline.evaluation.prompts import unseen_prompts
from pipeline.runs.comparisons import CONTROLS
from tests.conftest import RunCli, write_rows


def test_rows_that_cannot_be_scored_are_counted_apart() -> None:
    scores = AnswerScores("math", ["#### 5", "#### 6", "Paris"])
    answers = ["it is 5", "it is 5", "Paris"]
    values = scores.score_answers(answers)
    assert values == [1.0, 0.0, None]
    mean = scores.mean(answers, values)
    assert mean is not None and mean.value == 0.5
    assert mean.interval == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson's
    assert (scores.description.scored, scores.description.not_scored) == (2, 1)


def test_without_a_row_that_can_be_scored_there_is_no_mean() -> None:
    scores = AnswerScores("math", ["Paris", "Rome"])
    assert scores.mean(["Paris", "Rome"], scores.score_answers(["Paris", "Rome"])) is None


def test_a_graded_score_is_a_mean_with_an_interval() -> None:
    scores = AnswerScores("rouge", ["a b c d"] * 12)
    answers = ["a b c d", "a b"] * 6
    mean = scores.mean(answers, scores.score_answers(answers))
    assert scores.graded and mean is not None and mean.interval is not None
    assert mean.value == pytest.approx((1 + 2 / 3) / 2)
    low, high = mean.interval
    assert 0.6 < low < mean.value < high < 1


def test_the_share_of_right_fields_is_over_scored_rows() -> None:
    scores = AnswerScores("call", ["f(a=1, b=2)", "f(a=1)", "no call"])
    answers = ["f(a=1, b=3)", "f(a=1)", "f()"]
    mean = scores.mean(answers, scores.score_answers(answers))
    assert mean is not None and mean.value == 0.5
    assert mean.fields == pytest.approx((2 / 3 + 1) / 2)


def test_the_score_is_chosen_from_all_rows_not_only_answered_ones() -> None:
    assert AnswerScores("auto", ["yes"], ["yes", "no"] * 5).name == "choice"
    assert AnswerScores("auto", ["yes"]).name == "exact"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=10, max_size=40))
def test_the_interval_of_a_mean_contains_it(values: list[float]) -> None:
    interval = mean_interval(values)
    assert interval is not None
    assert interval == mean_interval(values)
    assert interval[0] - 1e-9 <= sum(values) / len(values) <= interval[1] + 1e-9
    assert mean_interval(values[:9]) is None


def test_a_faulty_function_is_refused_before_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_score.py").write_text(
        "def right(answer, reference):\n    return 2 if 'bad' in reference else 1\n"
    )
    monkeypatch.chdir(tmp_path)
    AnswerScores("faulty_score:right", ["good"])
    with pytest.raises(InputError, match=r"faulty_score:right: returned 2 for the answer 'bad'"):
        AnswerScores("faulty_score:right", ["good", "bad"])


def test_the_score_is_reported_everywhere_and_all_answers_are_kept(
    trained_run: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    data = write_rows(
        tmp_path / "rows.jsonl",
        [{"question": f"What is {n}?", "answer": f"label {n % 2}"} for n in range(10)],
    )
    shared = (
        *("evaluate", "--run", trained_run, "--dataset", data),
        *("--samples", 3, "--max-new-tokens", 4, "--device", "cpu"),
    )
    done = run_cli(*shared)
    assert done.returncode == 0, done.stderr
    page = html.unescape((trained_run / "evaluation/report.html").read_text())
    assert "score choice (the references are 2 labels)" in done.stdout
    assert "right answers" in done.stdout
    results = json.loads((trained_run / "evaluation/results.json").read_text())
    assert (results["score"]["name"], results["asked"]["score"]) == ("choice", "auto")
    assert results["score"]["definition"] in page
    assert "Score choice (the references are 2 labels)" in page
    for student in results["students"]:
        assert student["score"]["value"] == student["exact_match"]
    lines = [
        json.loads(line)
        for line in (trained_run / "evaluation/answers.jsonl").read_text().splitlines()
    ]
    names = ("student", *CONTROLS)
    assert [(line["row_id"], line["student"]) for line in lines] == [
        (str(row), name) for row in range(3) for name in names
    ]
    assert set(lines[0]) == {
        "row_id",
        "student",
        "prompt",
        "reference",
        "answer",
        "score",
        "stopped",
    }
    for sample in results["samples"]:
        row = {line["student"]: line for line in lines if line["row_id"] == sample["row_id"]}
        assert sample["answers"] == {name: line["answer"] for name, line in row.items()}
        assert sample["scores"] == {name: line["score"] for name, line in row.items()}
    graded = run_cli(*shared, "--score", "rouge")
    assert graded.returncode == 0, graded.stderr
    assert "score (rouge)" in " ".join(graded.stdout.split())
    unscored = run_cli(*shared, "--score", "json")
    assert "not measured: score: no reference can be scored by json" in unscored.stdout
    unknown = run_cli(*shared, "--score", "exakt")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "did you mean exact?" in unknown.stderr


def test_a_shared_greeting_does_not_make_rows_equal() -> None:
    hello = (Turn("user", "Hello"), Turn("assistant", "Hi there", learn=False))

    def row(number: int) -> Conversation:
        return Conversation(
            str(number), (*hello, Turn("user", f"Question {number}"), Turn("assistant", "Answer"))
        )

    prompts = unseen_prompts([row(1), row(2)], [row(1)], too_long=lambda row: None, count=9)
    assert [row.row_id for row in prompts.conversations] == ["2"]
    assert prompts.left_out == {"was trained on": 1}
    assert (
        unseen_prompts(
            [Conversation("3", hello)], [row(1)], too_long=lambda row: None, count=9
        ).conversations
        == []
    )

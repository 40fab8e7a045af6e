"""Which answers are kept, and what is counted, with answers given by the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.answering.run import AnswerResult, answer
from pipeline.errors import InputError, RunError
from pipeline.generation.answers import Written
from pipeline.generation.settings import Sampling
from tests.conftest import write_rows
from tests.pipeline.answering.conftest import MakeSettings

AnswerWith = Callable[..., AnswerResult]


@pytest.fixture
def answer_with(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AnswerWith:
    """Return a function that answers prompts of equal length, in order, with given texts.

    A text that ends in an ellipsis is cut.
    """

    def run(rows: list[object], texts: Sequence[str], **changes: object) -> AnswerResult:
        left = list(texts)

        class Given:
            def __init__(self, *_: object) -> None:
                pass

            def write_after(self, ids: Sequence[list[int]], _: Sampling) -> list[Written]:
                given = [left.pop(0) for _ in ids]
                return [Written(text, not text.endswith("…"), len(text)) for text in given]

        monkeypatch.setattr("pipeline.answering.generate.load_causal_lm", lambda *_: None)
        monkeypatch.setattr("pipeline.answering.generate.CausalLMWriter", Given)
        dataset = write_rows(tmp_path / "rows.jsonl", rows)
        result = answer(settings_of(dataset=str(dataset), limit=None, **changes))
        assert left == []
        return result

    return run


def asked(question: str, reference: str) -> dict[str, str]:
    return {"question": question, "answer": reference}


def ids_in(result: AnswerResult) -> list[str]:
    return [json.loads(line)["id"] for line in Path(result.out).read_text().splitlines()]


NUMBERS = [asked(f"What is {n} + 1?", f"so #### {n + 1}") for n in range(1, 6)]


def test_right_answers_are_kept_and_all_others_counted(answer_with: AnswerWith) -> None:
    result = answer_with(
        NUMBERS, ["\\boxed{2}", "it is 4", "#### 4", "#### 5…", "  "], keep="right"
    )
    assert ids_in(result) == ["0", "2"]
    assert (result.kept, result.wrong, result.not_ended) == (2, 1, 1)
    assert result.unusable == {"empty": 1}
    assert (result.score, result.unscorable) == ("math", 0)


def test_all_keeps_wrong_answers_but_none_that_is_cut(answer_with: AnswerWith) -> None:
    result = answer_with(NUMBERS, ["1", "2", "#### 3…", "4", "5"])
    assert ids_in(result) == ["0", "1", "3", "4"]
    assert (result.wrong, result.not_ended, result.score) == (0, 1, None)


def test_answers_with_control_tokens_are_counted(answer_with: AnswerWith) -> None:
    result = answer_with(NUMBERS, ["1", "<|im_end|>", "3", "4", "5"])
    assert result.unusable == {"control tokens in the text": 1}
    assert ids_in(result) == ["0", "2", "3", "4"]


def test_one_right_sample_of_a_prompt_is_kept(answer_with: AnswerWith) -> None:
    result = answer_with(NUMBERS[:2], ["2", "9", "9", "3"], keep="right", samples=2)
    assert ids_in(result) == ["0-0", "1-1"]


def test_rows_that_the_score_cannot_compare_are_counted_and_not_answered(
    answer_with: AnswerWith,
) -> None:
    rows = [*NUMBERS, asked("What is it all?", "nobody knows")]
    result = answer_with(rows, ["2", "3", "4", "5", "6"], keep="right", score="math")
    assert (result.prompts, result.kept, result.unscorable) == (5, 5, 1)


def test_no_kept_answer_is_an_error_with_the_counts(answer_with: AnswerWith) -> None:
    with pytest.raises(RunError, match=r"no answer is kept \(3 wrong, 1 not ended, 1 unusable\)"):
        answer_with(NUMBERS, ["7", "7", "7", "7…", ""], keep="right")


def test_no_scorable_row_is_an_error(answer_with: AnswerWith) -> None:
    with pytest.raises(InputError, match=r"no row of .* the score math can be compared with"):
        answer_with([asked("Why?", "because")], [], keep="right", score="math")


@pytest.mark.parametrize("score", ["auto", "rouge", "chrf"])
def test_graded_scores_find_no_answer_right(answer_with: AnswerWith, score: str) -> None:
    long_text = " ".join(f"word{n}" for n in range(30))
    with pytest.raises(InputError, match=r"--keep right: .* is graded.*--keep all"):
        answer_with([asked("Why?", long_text)], [], keep="right", score=score)


def test_your_own_score_may_decide_but_not_grade(
    answer_with: AnswerWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answering_scores.py").write_text(
        "def short(answer, reference): return len(answer) < 20\n"
        "def half(answer, reference): return 1 if answer == reference else 0.5\n"
    )
    monkeypatch.chdir(tmp_path)
    rows, texts = NUMBERS[:2], ["one", "a very long answer indeed"]
    result = answer_with(rows, texts, keep="right", score="answering_scores:short")
    assert ids_in(result) == ["0"]
    with pytest.raises(InputError, match=r"returned 0.5 for the answer 'one'; return 0 or 1"):
        answer_with(
            rows,
            texts,
            keep="right",
            score="answering_scores:half",
            out=tmp_path / "other.jsonl",
        )

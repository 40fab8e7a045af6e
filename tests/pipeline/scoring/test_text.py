"""Scores of texts: choice, exact, contains, overlap."""

import pytest

from pipeline.scoring.choice import ChoiceScore
from pipeline.scoring.interface import Score
from pipeline.scoring.text import ChrfScore, ContainsScore, ExactScore, RougeScore

CHOICE = ChoiceScore()


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("transfer money", 1),
        ("Transfer_Money.", 1),
        ('"transfer money"', 1),
        ("The intent is transfer money", 1),
        ("transfer", 0),
        ("transfer money or book hotel", 0),
        ("money transfer", 0),
        ("", 0),
        ("transfer moneys", 0),
    ],
)
def test_the_answer_must_be_the_label_alone(answer: str, right: float) -> None:
    assert CHOICE.score(answer, "transfer money") == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("C", 1),
        ("(C)", 1),
        ("c.", 1),
        ("C. Paris", 1),
        ("C) Paris", 1),
        ("The answer is C", 1),
        ("Answer: (C) Paris", 1),
        ("\\boxed{C}", 1),
        ("\\boxed{\\text{C}}", 1),
        ("**C**", 1),
        ("A cat is a cat, so the answer is (C).", 1),
        ("D", 0),
        ("(B) or (C)", 0),
        ("Cats", 0),
        ("", 0),
        ("The answer is cheese", 0),
        ("We see that the answer is c.", 1),
        ("The correct option is c, as shown", 1),
        ("Answer: I think it is C.", 1),
        ("My answer: A lot of people say Paris, but it is C.", 1),
        ("Answer: A", 0),
    ],
)
def test_an_option_is_chosen_by_its_letter(answer: str, right: float) -> None:
    assert (
        CHOICE.score(answer, "C")
        == CHOICE.score(answer, "(c)")
        == CHOICE.score(answer, "(C) Paris")
        == right
    )


def test_exact_only_folds_white_space() -> None:
    score = ExactScore()
    assert score.score(" a  b\n", "a b") == 1
    assert score.score("A b", "a b") == 0
    assert score.score("a b.", "a b") == 0
    assert not score.can_score(" \n")


def test_contains_matches_whole_words() -> None:
    score = ContainsScore()
    assert score.score("It is New  York.", "new york") == 1
    assert score.score("concatenate", "cat") == 0
    assert score.score("C++ it is", "c++") == 1


@pytest.mark.parametrize("score", [RougeScore(), ChrfScore()])
def test_overlap_scores_are_graded(score: RougeScore | ChrfScore) -> None:
    reference = "the cat sat on the mat"
    values = [
        score.score(answer, reference) for answer in (reference, "the cat sat there", "no", "")
    ]
    assert values[0] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.0)
    assert 0.2 < values[1] < 0.9


@pytest.mark.parametrize("score", [ExactScore(), ContainsScore(), RougeScore(), ChrfScore()])
def test_reasoning_before_the_answer_does_not_count(score: Score) -> None:
    reference = "<think>so it must be</think>\n\nCity number 3"
    assert score.can_score(reference)
    assert score.score("City number 3", reference) == pytest.approx(1.0)
    assert score.score("<think>another thought</think>City number 3", reference) == pytest.approx(
        1.0
    )
    assert not score.can_score("<think>never ended")

import pytest

from pipeline.scoring.text import ChoiceScore, ChrfScore, ContainsScore, ExactScore, RougeScore

LABELS = ChoiceScore(frozenset({"transfer", "transfer money", "book hotel", "no"}))
LETTERS = ChoiceScore(frozenset("abcd"))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("transfer money", 1), ("Transfer_Money.", 1), ('"transfer money"', 1), ("The intent is transfer money", 1),
        ("transfer", 0),
        ("transfer money or book hotel", 0), ("money transfer", 0), ("", 0), ("transfer moneys", 0),
    ],
)  # fmt: skip
def test_a_label_is_named_alone(answer: str, right: float) -> None:
    assert LABELS.score(answer, "transfer money") == right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("C", 1), ("(C)", 1), ("c.", 1), ("C. Paris", 1),
        ("C) Paris", 1), ("The answer is C", 1), ("Answer: (C) Paris", 1), ("\\boxed{C}", 1),
        ("\\boxed{\\text{C}}", 1), ("**C**", 1), ("A cat is a cat, so the answer is (C).", 1), ("D", 0),
        ("(B) or (C)", 0), ("Cats", 0), ("", 0),
        ("The answer is cheese", 0),
    ],
)  # fmt: skip
def test_a_letter_is_chosen(answer: str, right: float) -> None:
    assert LETTERS.score(answer, "C") == LETTERS.score(answer, "(c)") == right


def test_exact_folds_white_space_alone() -> None:
    score = ExactScore()
    assert score.score(" a  b\n", "a b") == 1
    assert score.score("A b", "a b") == 0
    assert score.score("a b.", "a b") == 0
    assert not score.can_score(" \n")


def test_contains_wants_whole_words() -> None:
    score = ContainsScore()
    assert score.score("It is New  York.", "new york") == 1
    assert score.score("concatenate", "cat") == 0
    assert score.score("C++ it is", "c++") == 1


@pytest.mark.parametrize("score", [RougeScore(), ChrfScore()])
def test_overlap_is_graded(score: RougeScore | ChrfScore) -> None:
    reference = "the cat sat on the mat"
    values = [score.score(answer, reference) for answer in (reference, "the cat sat there", "no", "")]
    assert values[0] == pytest.approx(1.0)
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(0.0)
    assert 0.2 < values[1] < 0.9

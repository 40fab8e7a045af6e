import threading

import pytest

from pipeline.scoring.final_answers import final_answer
from pipeline.scoring.math_answers import MathScore, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{72}.", "72"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{2} and an empty \\boxed{} box", "2"),
        ("so \\boxed 5 it is", "5"),
        ("\\fbox{7}", "7"),
        ("steps\n#### 1,234", "1,234"),
        ("#### 5\nmore", "5"),
        ("#### -$5.50 in all", "-$5.50 in all"),
        ("#### Step 2\nso the answer is 7.", "7"),
        ("#### 12\n#### Check\nAll of the 3 steps hold.", "12"),
        ("The answer is 7, because 3 and 4 make it.", "7"),
        ("Final answer: $\\frac{1}{2}$ of 9", "\\frac{1}{2}"),
        ("it is 12 or rather 14", "14"),
        ("10-4", "4"),
        ("it fell by -4", "-4"),
        ("pages 3-5", "5"),
        ("it costs 1,200.50.", "1,200.50"),
        ("<think>maybe 3</think>It is 4", "4"),
        ("<|begin_of_thought|>\\boxed{1}<|end_of_thought|><|begin_of_solution|>It is 2", "2"),
        ("\\boxed{never closed 3", "3"),
        ("no number", None),
        ("", None),
        ("####", None),
        ("\\boxed{}", None),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("72", "72.0"), ("$1,234", "1234"), ("1 234 567", "1234567"), ("1\\,000", "1000"), ("10{,}080", "10080"),
        ("0.50", ".5"), ("-5", "\u22125"), ("- 5", "-5"), ("+5", "5"), ("1e4", "10000"), ("3\\times 10^{4}", "30000"),
        ("1/2", "0.5"), ("\\frac12", "1/2"), ("\\dfrac{1}{2}", "\\tfrac{1}{2}"), ("1 1/2", "3/2"),
        ("1\\frac{1}{2}", "1.5"), ("\u00bd", "0.5"),
        ("50\\%", "50"), ("50%", "50 \\%"), ("18 dollars", "$18"), ("5\\text{ cm}", "5"), ("5 cm^2", "5"),
        ("12 km/h", "12"),
        ("45^\\circ", "45"), ("45\u00b0", "45 degrees"), ("\u20ac30", "30"), ("**8**", "8"), ("\\(8\\)", "8"),
        ("$8$", "8"),
        ("x=5", "5"), ("x = 5", "x=5"), ("y = 2x+1", "2x+1"), ("x+1", "1+x"), ("2\\sqrt{2}", "\\sqrt{8}"),
        ("\u03c0", "\\pi"),
        ("(1, 2)", "(1,2)"), ("\\left(1,2\\right)", "(1,2)"), ("\\{1,2\\}", "\\{2,1\\}"), ("[0, 1)", "[0,1)"), ("2 or 3", "2, 3"),
        ("\\text{(C)}", "C"), ("(c)", "C"), ("\\mathrm{C}", "C"), ("Yes.", "yes"), ("10:30", "10:30"),
        ("\\text{New York}", "New York"),
    ],
)  # fmt: skip
def test_what_is_the_same(one: str, two: str) -> None:
    assert same_answer(one, two)
    assert same_answer(two, one)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("72", "27"), ("5", "-5"), ("1,2", "12"), ("3,14", "314"), ("1,23,456", "123456"), ("(1,2)", "(2,1)"),
        ("(0,1)", "[0,1]"),
        ("(1,234)", "1234"), ("x>5", "x<5"), ("0.333", "1/3"), ("A", "B"), ("Paris", "Pairs"),
        ("2024-05-06", "2013"), ("10:30", "1/3"),
        ("3-5", "-2"), ("NaN", "1"), ("Infinity", "1"), ("\\infty", "-\\infty"), ("12 apples", "13"), ("yes", "no"),
        ("", "1"),
    ],
)  # fmt: skip
def test_what_is_not_the_same(one: str, two: str) -> None:
    assert not same_answer(one, two)
    assert not same_answer(two, one)


def test_nothing_is_the_same_as_nothing() -> None:
    assert not same_answer(None, None)
    assert not same_answer(None, "1")
    assert not same_answer("1", None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bomb", ["9^{9^{9^{9}}}", "1e999999999", "(" * 200, "x" * 5000, "\\sum_{n=1}^{10^{12}} n", "1/0", "0/0"])
def test_what_cannot_be_computed_is_no_match_and_no_hang(bomb: str) -> None:
    assert not same_answer(bomb, "3")


def test_it_works_outside_the_main_thread() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_answer("2\\sqrt{2}", "\\sqrt{8}")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_reference_without_a_result_is_not_scored() -> None:
    score = MathScore()
    assert not score.can_score("Paris is the capital of France.")
    assert score.can_score("#### 7")
    assert (score.score("It is 7.0", "#### 7"), score.score("It is 8", "#### 7"), score.score("", "#### 7")) == (1.0, 0.0, 0.0)

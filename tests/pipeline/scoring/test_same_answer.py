"""Equality of final results in the notations of people and models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.math_score import MathScore
from pipeline.scoring.mathematics.final_answer import final_answer
from pipeline.scoring.mathematics.same_answer import same_answer
from tests.pipeline.scoring.different_results import DIFFERENT
from tests.pipeline.scoring.equal_results import EQUAL


@pytest.mark.parametrize("one, other", EQUAL)
def test_notations_of_one_result_are_equal(one: str, other: str) -> None:
    assert same_answer(one, other) and same_answer(other, one)


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_different_results_are_not_equal(one: str, other: str) -> None:
    assert not same_answer(one, other) and not same_answer(other, one)


def test_every_result_equals_itself() -> None:
    for one, _ in (*EQUAL, *DIFFERENT):
        assert same_answer(one, one) is bool(one)


@given(st.integers(-(10**12), 10**12))
def test_an_integer_is_the_same_in_all_notations(number: int) -> None:
    notations = [
        f"{number}",
        f"{number:,}",
        f"{number:,}".replace(",", "{,}"),
        f"{number}.0",
        f"\\text{{{number}}}",
        f"{number} clips",
    ]
    for notation in notations:
        assert same_answer(final_answer(f"so \\boxed{{{notation}}}"), str(number))
        assert not same_answer(notation, str(number + 1))
    assert same_answer(final_answer(f"it is {number:,} in all"), f"{number}")


@given(st.fractions(min_value=-99, max_value=99, max_denominator=99))
def test_a_fraction_is_the_same_in_all_notations(value: object) -> None:
    up, down = value.as_integer_ratio()  # type: ignore[attr-defined]
    for notation in (
        f"\\frac{{{up}}}{{{down}}}",
        f"\\dfrac{{{3 * up}}}{{{3 * down}}}",
        f"{up}/{down}",
    ):
        assert same_answer(notation, f"{up}/{down}")
        assert not same_answer(notation, f"{up + 1}/{down}")


@given(st.text(alphabet="0123456789+-*/^().,{}\\\\$%=xfrac boxed#", max_size=40))
def test_no_notation_breaks_the_comparison(text: str) -> None:
    assert same_answer(final_answer(text), "5") in (True, False)
    assert same_answer(text, text) in (True, False)


def test_a_reference_without_a_result_cannot_be_scored() -> None:
    score = MathScore()
    assert not score.can_score("Paris is the capital of France.")
    assert not score.can_score("")
    assert score.score("no idea", "#### 5") == 0.0
    assert score.score("so \\boxed{5}", "<think>4?</think>\n#### 5") == 1.0

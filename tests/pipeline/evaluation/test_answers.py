"""The form and repetition of answers."""

import pytest

from pipeline.evaluation.answers import has_form, repetition


def test_the_form_has_each_section_once_and_in_order() -> None:
    good = "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>"
    assert has_form(good)
    assert not has_form(good + "<|end_of_solution|>")
    assert not has_form(
        "<|begin_of_solution|>b<|end_of_solution|><|begin_of_thought|>a<|end_of_thought|>"
    )
    assert not has_form("plain")


def test_repetition_is_the_share_of_repeated_4_grams() -> None:
    assert repetition("one two three") == 0
    assert repetition("one two three four five six") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no " * 100) > 0.98

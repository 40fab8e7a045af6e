import pytest

from pipeline.evaluation.answers import final_answer, has_form, repetition, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{72}.", "72"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("steps\n#### 1,234", "1,234"),
        ("#### 5\nmore", "5"),
        ("it is 12 or rather 14", "14"),
        ("\\boxed{never closed 3", "3"),
        ("no number", None),
        ("", None),
        ("####", None),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("found", "reference", "same"),
    [
        ("72", "72.0", True), ("$1,234", "1234", True), ("72", "27", False), ("Yes.", "yes", True),
        (None, "1", False), ("1", None, False), (None, None, False), ("NaN", "1", False),
        ("-5", "5", False), ("0.50", ".5", True),
    ],
)  # fmt: skip
def test_answers_are_compared_as_numbers_or_words(found: str | None, reference: str | None, same: bool) -> None:
    assert same_answer(found, reference) is same


def test_the_form_needs_each_section_once_and_in_order() -> None:
    good = "<|begin_of_thought|>a<|end_of_thought|><|begin_of_solution|>b<|end_of_solution|>"
    assert has_form(good)
    assert not has_form(good + "<|end_of_solution|>")
    assert not has_form("<|begin_of_solution|>b<|end_of_solution|><|begin_of_thought|>a<|end_of_thought|>")
    assert not has_form("plain")


def test_repetition_is_the_share_of_word_runs_that_came_before() -> None:
    assert repetition("one two three") == 0
    assert repetition("one two three four five six") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)
    assert repetition("no " * 100) > 0.98

"""Extraction of final results from texts as models and data sets write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.mathematics.final_answer import final_answer, has_marked_answer

RESULTS = [
    # boxes
    (r"so \boxed{72}.", "72"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed {5}", "5"),
    (r"\boxed 5", "5"),
    (r"\fbox{5}", "5"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{1} and \boxed{2}", "1, 2"),
    (r"$x=\boxed{1}$, $y=\boxed{2}$", "1, 2"),
    (r"first \boxed{1}, so in the end \boxed{7}", "7"),
    (r"\boxed{} so 4", "4"),
    (r"\boxed{\ldots} gives 4", "4"),
    (r"\boxed{...}: 4", "4"),
    (r"\boxed{5}, as \boxed{} asks", "5"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{7} and 3 more words", "7"),
    (r"\boxed{5} is \boxed{5}", "5"),
    ("$$\\boxed{\n5\n}$$", "5"),
    # ####
    ("a\n#### 72", "72"),
    ("#### 18 dollars", "18 dollars"),
    ("#### -3", "-3"),
    ("#### $1,000", "$1,000"),
    ("5 #### 7", "7"),
    ("#### Conclusion\nThe answer is 7.", "7"),
    ("#### Step 2\nIt is 4, so 9", "9"),
    ("#### 2. Compute the sum\n3 + 4 = 7", "7"),
    ("#### Answer: 72", "72"),
    ("#### The final answer is 72", "72"),
    ("#### yes", "yes"),
    ("#### Final Answer\n\n72", "72"),
    ("#### 72 clips in total. She is happy.", "72 clips in total"),
    ("#### 18, because 3 times 6 is 18", "18"),
    ("####5", "5"),
    ("##### 5\nso 7", "7"),
    ("#### 5 and 6", "5 and 6"),
    ("#### **72**", "72"),
    ("#### 1/2", "1/2"),
    ("#### \n72", "72"),
    ("#### 10\n#### 20", "20"),
    # stated answers
    ("The answer is 7 apples, out of 10.", "7"),
    ("The final answer is: 3 + 4 = 7.", "3 + 4 = 7"),
    ("Answer: B", "B"),
    ("**Answer:** 42\nOf 50.", "42"),
    ("The answer is (C).", "C"),
    ("So the answer is C because 5 > 3.", "C"),
    ("The answer is $\\frac{1}{2}$.", r"$\frac{1}{2}$"),
    ("The answer is Paris.", "Paris"),
    ("The answer is 1,234.50. Then 3 more.", "1,234.50"),
    ("The answer to the first of 2 is 9", "9"),
    ("The answers are 1 and 2.", "2"),
    ("The answer is therefore -3.", "-3"),
    ("Final answer: x = 5", "x = 5"),
    ("<answer>72</answer> of 80", "72"),
    # whole texts, and last numbers
    ("1/2", "1/2"),
    ("(1, 2)", "(1, 2)"),
    ("x^2+1", "x^2+1"),
    ("-3", "-3"),
    ("3/4 of the cake", "3/4"),
    ("it is 12 or rather 14", "14"),
    ("see pages 3-5", "5"),
    ("10-4 is 6", "6"),
    ("it costs $29.00.", "$29.00"),
    ("it grew by 50%.", "50%"),
    ("on 2024-01-05.", "2024-01-05"),
    ("at 10:30 in all", "10:30"),
    ("so it is -7", "-7"),
    ("in 2024, 5", "5"),
    ("In the end, $x = \\frac{1}{2}$.", r"x = \frac{1}{2}"),
    ("about 1.5 × 10^3 of them", "1.5 × 10^3"),
    ("it holds 1,234,567 tons", "1,234,567"),
    ("Version 2 has 3.", "3"),
    ("no number", None),
    ("", None),
    # a thought before
    ("<think>it may be \\boxed{5}</think>It is 7.", "7"),
    ("it may be 5</think>\n\n\\boxed{7}", "7"),
    ("<think>it may be 5", None),
    (
        "<|begin_of_thought|>5<|end_of_thought|><|begin_of_solution|>\\boxed{7}<|end_of_solution|>",
        "7",
    ),
    ("<|begin_of_thought|>\\boxed{5}<|end_of_thought|>\n\nIt is 8.", "8"),
    ("<think>5</think>", None),
]


@pytest.mark.parametrize("text, result", RESULTS)
def test_the_final_result_is_extracted(text: str, result: str | None) -> None:
    assert final_answer(text) == result


@given(st.text(max_size=60))
def test_no_text_breaks_the_extraction(text: str) -> None:
    assert final_answer(text) is None or isinstance(final_answer(text), str)


def test_marked_answers_are_recognised() -> None:
    assert has_marked_answer("#### 5") and has_marked_answer(r"\boxed{x}")
    assert not has_marked_answer("#### Heading\nand text")
    assert not has_marked_answer(r"\boxed{}")
    assert not has_marked_answer("5")

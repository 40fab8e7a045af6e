"""Final results: what is found in a text, and when two are the same. Each case is a notation that
people and models use."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.math_score import MathScore
from pipeline.scoring.mathematics import symbolic
from pipeline.scoring.mathematics.final_answer import final_answer, has_marked_answer
from pipeline.scoring.mathematics.same_answer import same_answer

SAME = [
    # thousands
    ("1,234,567", "1234567"),
    ("1 234 567", "1234567"),
    ("1\u202f234", "1234"),
    ("1\u00a0234.5", "1234.5"),
    ("1'234", "1234"),
    ("1’234", "1234"),
    ("1_000_000", "1000000"),
    (r"1{,}234{,}567", "1,234,567"),
    (r"1\,234", "1234"),
    (r"10,\!080", "10080"),
    (r"1\ 000", "1000"),
    ("1,00,000", "100000"),
    ("1,234", "1, 234"),
    ("12,345.67", "12345.67"),
    (r"1\;000", "1000"),
    # signs
    ("−5", "-5"),
    ("–5", "-5"),
    ("+5", "5"),
    ("－5", "-5"),
    ("-$5", "$-5"),
    ("- 5", "-5"),
    ("-0", "0"),
    # money
    ("$18", "18"),
    (r"\$18", "18"),
    ("$18.00", "18 dollars"),
    ("18 USD", "$18"),
    ("€5", "5 euros"),
    ("US$5", "$5"),
    ("$18$", "18"),
    ("£1,000", "1000 pounds of money"),
    ("Rs. 500", "500"),
    ("₹500", "500 rupees"),
    ("$5 million", "5000000"),
    (r"\$5.50", "5.5"),
    # percent
    ("50%", "50"),
    (r"50\%", "0.5"),
    ("50 %", "50 percent"),
    ("50 per cent", "50%"),
    ("12.5%", "12.50 %"),
    (r"50\ \%", "50"),
    # units
    ("5 cm", "5"),
    (r"5\text{ cm}", "5"),
    (r"5\,\mathrm{cm}", "5 centimeters"),
    ("5cm", "5"),
    (r"5\mbox{ cm}^2", "5"),
    (r"25 \text{ cm}^2", "25 square cm"),
    ("60 km/h", "60"),
    ("60 km per hour", "60 km/h"),
    ("90°", "90"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90 degrees"),
    ("20 °C", "20"),
    ("20 °C", "20 degrees Celsius"),
    ("72 clips", "72"),
    ("18 dollars a day", "18"),
    ("7th", "7"),
    ("5 p.m.", "5 PM"),
    ("5 miles per hour", "5 mph"),
    ("3 hours", "3 hr"),
    ("5 apples", "5 red apples"),
    # fractions and mixed numbers
    (r"\frac12", "1/2"),
    (r"\dfrac{1}{2}", "0.5"),
    (r"\tfrac{3}{4}", ".75"),
    (r"\frac{1}2", "1/2"),
    ("½", "1/2"),
    ("1½", "3/2"),
    (r"1\frac{1}{2}", "3/2"),
    ("1 1/2", "1.5"),
    (r"-1 \frac{1}{2}", "-1.5"),
    (r"{1 \over 2}", "0.5"),
    ("6/8", "3/4"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{1,000}{4}", "250"),
    ("1 / 2", "1/2"),
    ("1/3", "0.3333333"),
    ("10/4", "2.5"),
    # powers of ten
    ("1.5e3", "1500"),
    ("1.5E+3", "1500"),
    (r"1.5 \times 10^3", "1500"),
    (r"1.5\times10^{-3}", "0.0015"),
    ("1.5 × 10³", "1500"),
    ("2 x 10^3", "2000"),
    ("2*10^3", "2000"),
    ("10^3", "1000"),
    ("10⁻²", "0.01"),
    (r"1.5 \cdot 10^{3}", "1,500"),
    ("5 million", "5,000,000"),
    ("2.5 billion", "2500000000"),
    ("3 hundred", "300"),
    # tuples, sets, intervals, lists
    ("(1, 2)", "(1,2)"),
    (r"\left(1,2\right)", "(1,2)"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("1, 2", "2,1"),
    (r"\{5\}", "5"),
    (r"(1,\frac{1}{2})", "(1, 0.5)"),
    ("[1, 2)", "[1,2)"),
    (r"(-\infty, 5)", r"(-∞,5)"),
    ("1 and 2", "2, 1"),
    ("2 or 1", "1,2"),
    (r"1\text{ and }2", "1,2"),
    (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)"),
    ("1; 2", "1, 2"),
    ("((1,2),3)", "((1,2), 3)"),
    (r"\pm 2", "2, -2"),
    (r"x=\pm 2", "x=2, -2"),
    ("1,2,3", "3, 2, and 1"),
    (r"\lbrace 1,2\rbrace", r"\{1,2\}"),
    ("(5)", "5"),
    (r"\emptyset", "∅"),
    (r"\varnothing", r"\emptyset"),
    ("(1, 2)", "1, 2"),
    # named unknowns and calculations
    ("x=5", "5"),
    ("x = 5", "x=5.0"),
    (r"\theta = 30^\circ", "30"),
    ("x_1 = 3", "3"),
    ("f(x) = 2x+1", "2x + 1"),
    ("y=2x+1", "1+2x"),
    ("x=1, y=2", "y=2, x=1"),
    ("x=1, y=2", "(1,2)"),
    ("x=2 or x=3", "x=3 or x=2"),
    ("Total = 72", "72"),
    ("10 - 4 = 6", "6"),
    (r"3 \times 4 = 12", "12"),
    (r"x \in \{1,2\}", "1,2"),
    ("x=2, 3", "2,3"),
    ("about 5", "5"),
    (r"\approx 3.14", "3.14"),
    ("Area = 5 cm^2", "5"),
    # formulas
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"2\pi", "2π"),
    ("3+4i", "4i+3"),
    ("5!", "120"),
    ("x > 5", "5 < x"),
    (r"x \geq 5", "x ≥ 5"),
    (r"x\ge5", "x >= 5"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("√2", r"\sqrt{2}"),
    (r"[1,2)", r"1 \le x < 2"),
    ("2x+3y=6", "4x+6y=12"),
    ("sqrt(3)", r"\sqrt3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ("2*3", "6"),
    (r"\sqrt[3]{8}", "2"),
    (r"x^{2}", "x²"),
    # options and words
    ("(C)", "C"),
    ("C.", "C"),
    ("(c)", "C"),
    (r"\text{(C)}", "C"),
    (r"\textbf{(C)}", "c"),
    ("C)", "(C)"),
    (r"\textbf{(C)}\ 12", "C"),
    (r"\textbf{(C)}~12", "12"),
    ("option C", "C"),
    ("Yes.", "yes"),
    (r"\text{no  solution}", "No solution"),
    ("**18**", "18"),
    ("`18`", "18"),
    ('"18"', "18"),
    ("18.", "18"),
    ("18,", "18"),
    (r"\mathrm{True}", "true"),
    ("{5}", "5"),
    # dates, times, ratios, ranges: as they stand
    ("2024-01-05", "2024-01-05"),
    ("10:30 am", "10:30 a.m."),
    ("09:30", "9:30"),
    ("3:4", "3 : 4"),
    ("3–5", "3–5"),
    ("1.234,56", "1.234,56"),
    ("5 January 2024", "5 january 2024"),
    ("3,14", "3,14"),
    (r"1011_{2}", "1011_2"),
]

DIFFERENT = [
    ("1,2", "12"),
    ("3,14", "314"),
    ("3,14", "3.14"),
    ("1,23", "123"),
    ("1,2345", "12345"),
    ("1.234,56", "1234.56"),
    ("1 2", "12"),
    ("5", "-5"),
    ("2024-01-05", "2018"),
    ("3-5", "-2"),
    ("10:30", "1030"),
    ("3:4", "0.75"),
    ("1/5/2024", "5"),
    ("9-17", "-8"),
    ("5 January 2024", "5"),
    ("5 January", "5 March"),
    ("5 am", "5 pm"),
    ("5 cm", "5 km"),
    ("$5", "5 euros"),
    ("50%", "$50"),
    ("0.5%", "50%"),
    ("5x", "5"),
    ("5i", "5"),
    ("5 million", "5"),
    ("5", "5, 6"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("[1,2)", "[1,2]"),
    (r"\{1,2\}", "(1,2)"),
    (r"\{1,2\}", r"\{1,3\}"),
    ("x=5", "y=5"),
    ("x=1, y=2", "x=2, y=1"),
    ("2x+3y=6", "6"),
    ("x+y=5", "5"),
    ("A", "B"),
    ("(A)", "(C)"),
    ("no", "on"),
    ("Paris", "London"),
    ("yes", "no"),
    ("1e3", "1e4"),
    ("1000001", "1000000"),
    ("0.33", "1/3"),
    ("x > 5", "x < 5"),
    (r"\sqrt{2}", "1.4"),
    ("5!", "5"),
    ("x^2", "2x"),
    ("", "5"),
    ("5", ""),
    ("1 3/2", "5/2"),
    ("1e999999999", "1"),
    ("NaN", "1"),
    ("1/0", "1"),
    ("∞", "1"),
    (r"\pm 2", "2"),
    ("+5", "-5"),
    ("1 1/2", "11/2"),
    ("3-5", "3 to 5"),
    ("5 or 6", "5"),
    ("Step 2", "2"),
    ("2nd of May", "2"),
    ("1011_2", "1012"),
]

FOUND = [
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


@pytest.mark.parametrize("one, other", SAME)
def test_notations_of_one_result_are_equal(one: str, other: str) -> None:
    assert same_answer(one, other) and same_answer(other, one)


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_different_results_are_not_equal(one: str, other: str) -> None:
    assert not same_answer(one, other) and not same_answer(other, one)


@pytest.mark.parametrize("text, result", FOUND)
def test_the_final_result_is_extracted(text: str, result: str | None) -> None:
    assert final_answer(text) == result


def test_every_result_equals_itself() -> None:
    for one, _ in (*SAME, *DIFFERENT):
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


@given(st.text(max_size=60))
def test_no_text_breaks_the_extraction(text: str) -> None:
    assert final_answer(text) is None or isinstance(final_answer(text), str)


@given(st.text(alphabet="0123456789+-*/^().,{}\\\\$%=xfrac boxed#", max_size=40))
def test_no_notation_breaks_the_comparison(text: str) -> None:
    found = final_answer(text)
    same_answer(found, "5") or same_answer(text, text)


@pytest.mark.parametrize(
    "formula",
    [
        "9^{9^{9^{9}}}",
        "10^{10^{10}}",
        "1" + "!" * 30,
        "(x+1)^{99999}",
        r"\sum_{n=1}^{10^{9}} n^{n}",
        "2^" * 40 + "2",
    ],
)
def test_an_endless_comparison_times_out_and_the_next_one_works(
    formula: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(symbolic, "SECONDS", 0.7)
    began = time.monotonic()
    same_answer(formula, "x^2+1")
    assert time.monotonic() - began < 30  # of which most is the start of another process
    monkeypatch.undo()
    symbolic.same_formula.cache_clear()
    assert same_answer("x^2+2x+1", "(x+1)^2")


def test_formulas_are_compared_outside_the_main_thread() -> None:
    symbolic.same_formula.cache_clear()
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_answer("2x+2", "2(x+1)")))
    thread.start()
    thread.join()
    assert found == [True]


def test_answers_are_never_executed(tmp_path: object) -> None:
    for text in (f"__import__('os').system('touch {tmp_path}/gone')", "exec(1)", "().__class__"):
        assert not same_answer(text, "5")
    assert not list(tmp_path.iterdir())  # type: ignore[attr-defined]


def test_a_reference_without_a_result_cannot_be_scored() -> None:
    score = MathScore()
    assert not score.can_score("Paris is the capital of France.")
    assert not score.can_score("")
    assert score.score("no idea", "#### 5") == 0.0
    assert score.score("so \\boxed{5}", "<think>4?</think>\n#### 5") == 1.0


def test_marked_answers_are_recognised() -> None:
    assert has_marked_answer("#### 5") and has_marked_answer(r"\boxed{x}")
    assert (
        not has_marked_answer("#### Heading\nand text")
        and not has_marked_answer(r"\boxed{}")
        and not has_marked_answer("5")
    )

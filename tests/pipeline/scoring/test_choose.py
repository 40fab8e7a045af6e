"""The choice of a score from references, and scores by name."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.embedded import EMBEDDED_DATASET
from pipeline.errors import InputError
from pipeline.scoring.choose import SCORE_NAMES, choose_score

LONG = (
    "A long answer in free words that nobody would compare letter by letter, for there are many"
    " ways to say the same thing."
)


@pytest.mark.parametrize(
    ("references", "name"),
    [
        ([f"so it is\n#### {n}" for n in range(9)], "math"),
        (["<|begin_of_solution|>\\boxed{x+1}<|end_of_solution|>"] * 3, "math"),
        (["12", "3.5", "1,000"], "math"),
        (['Play(song="x")', "Stop()"], "call"),
        ([json.dumps({"name": "Play", "arguments": {}})] * 2, "call"),
        (['{"a": 1}', "[1, 2]"], "json"),
        (["yes", "no"] * 4, "choice"),
        (list("ABCDABCD"), "choice"),
        (["transfer money", "book hotel"] * 3, "choice"),
        ([f"label {n}" for n in range(9)], "exact"),
        ([LONG] * 4, "rouge"),
        ([], "exact"),
        (["", " "], "exact"),
        (["", "#### 3"], "math"),
        (["#### 3"] * 19 + ["unknown"], "math"),
    ],
)
def test_references_decide_the_score(references: list[str], name: str) -> None:
    choice = choose_score("auto", references)
    assert choice.score.name == name
    assert choice.reason


def test_the_embedded_problems_are_scored_as_mathematics() -> None:
    rows = [json.loads(line) for line in Path(EMBEDDED_DATASET).read_text().splitlines()[:50]]
    assert (
        choose_score("auto", [row["conversations"][-1]["value"] for row in rows]).score.name
        == "math"
    )


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=30), max_size=12), st.sampled_from(SCORE_NAMES), st.text(max_size=30)
)
def test_every_score_is_between_0_and_1_for_any_text(
    references: list[str], name: str, answer: str
) -> None:
    score = choose_score(name, references).score
    for reference in references:
        if score.can_score(reference):
            assert 0.0 <= score.score(answer, reference) <= 1.0
            if name not in ("auto", "math", "rouge", "chrf"):
                assert score.score(reference, reference) == 1.0


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=8), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_references(
    references: list[str], random: object
) -> None:
    mixed = list(references)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert choose_score("auto", references) == choose_score("auto", mixed)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("exakt", r"did you mean exact\?"),
        ("", "no such score; choose auto"),
        ("a:", "no such score"),
        (":b", "no such score"),
    ],
)
def test_unknown_scores_are_refused(name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        choose_score(name, [])


def test_a_custom_function_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_scores.py").write_text(
        "def half(answer, reference):\n    'Half of it.'\n    return 0.5\n\ndef right(answer,"
        " reference):\n    return answer == reference\n\ndef much(answer, reference):\n    return"
        " 2\n\ndef broken(answer, reference):\n    raise KeyError('x')\n\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    choice = choose_score("own_scores:half", ["a"])
    assert choice.score.score("x", "a") == 0.5
    assert "Half of it." in choice.score.definition
    assert choose_score("own_scores:right", ["a"]).score.score("a", "a") == 1.0
    for name, problem in [
        ("own_scores:much", "returned 2 for the answer 'x'"),
        ("own_scores:broken", "KeyError"),
    ]:
        with pytest.raises(InputError, match=problem):
            choose_score(name, []).score.score("x", "a")
    for name, problem in [
        ("own_scores:nothing", "cannot be imported"),
        ("no_such_module:f", "cannot be imported"),
        ("own_scores:number", "of type int; name a function"),
    ]:
        with pytest.raises(InputError, match=problem):
            choose_score(name, [])

"""Scores of JSON and calls of functions."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.structures import CallScore, JsonScore

LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["city", "n", "when", "items"])
CALL = 'Weather(city="Ulm", days=3)'


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(item) for key, item in reversed(value.items())}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_only_the_order_of_keys_is_free(value: Any) -> None:
    score, reference = JsonScore(), json.dumps(value)
    assert score.score(json.dumps(shuffled(value), indent=2), reference) == 1.0
    assert score.fields(reference, reference) == 1.0
    assert score.score(json.dumps([value]), reference) == 0.0


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_a_call_is_the_same_in_every_notation(arguments: dict[str, Any]) -> None:
    score = CallScore()
    python = f"Book({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    plain = json.dumps({"name": "Book", "arguments": arguments})
    nested = json.dumps(
        [{"type": "function", "function": {"name": "Book", "arguments": json.dumps(arguments)}}]
    )
    tagged = f"<tool_call>\n{plain}\n</tool_call>"
    for answer in (python, plain, nested, tagged, f"```python\n{python}\n```", f"[{python}]"):
        assert score.can_score(answer)
        assert score.score(answer, python) == 1.0
        assert score.fields(answer, python) == 1.0


@pytest.mark.parametrize(
    ("answer", "right", "fields"),
    [
        (CALL, 1.0, 1.0),
        ("Weather(days=3.0, city='Ulm')", 1.0, 1.0),
        ('Weather(city="Ulm")', 0.0, 2 / 3),
        ('Weather(city="Ulm", days=3, hour=1)', 0.0, 3 / 4),
        ('Weather(city="Bonn", days=3)', 0.0, 2 / 3),
        ('Forecast(city="Ulm", days=3)', 0.0, 2 / 3),
        ('Weather(city="Ulm", days=true)', 0.0, 2 / 3),
        ('Weather(city="Ulm", days="3")', 0.0, 2 / 3),
        (f"{CALL}\n{CALL}", 0.0, 1 / 2),
        ('Weather(city="Ulm", days=3', 0.0, 0.0),
        (f"I call {CALL}", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("x = 1", 0.0, 0.0),
        ("Weather(**{})", 0.0, 0.0),
        ("(" * 9000, 0.0, 0.0),
    ],
)
def test_calls_and_their_fields_are_scored(answer: str, right: float, fields: float) -> None:
    assert CallScore().score(answer, CALL) == right
    assert CallScore().fields(answer, CALL) == pytest.approx(fields)


def test_answers_are_never_executed() -> None:
    assert CallScore().score("__import__('os').system('exit 1')", "f()") == 0.0


@pytest.mark.parametrize(
    "reference",
    ["", "transfer money", "f(x)", "{1: 2", "1 + 1", "lambda: 1", "f(1)(2) if x else y"],
)
def test_references_without_a_call_cannot_be_scored(reference: str) -> None:
    assert not CallScore().can_score(reference)


def test_numbers_are_not_booleans_and_nan_is_not_json() -> None:
    score = JsonScore()
    assert score.score("[1]", "[true]") == 0.0
    assert score.score("[1.0]", "[1]") == 1.0
    assert not score.can_score("NaN")
    assert score.score("[]", "{}") == 0.0


@pytest.mark.parametrize(
    "deep",
    [
        "[" * 500 + "]" * 500,
        "f" + "()" * 350,
        "a" + ".a" * 350 + "()",
        "f(a=" + "[" * 400 + "]" * 400 + ")",
    ],
)
def test_deeply_nested_structures_are_wrong_not_fatal(deep: str) -> None:
    for score in (JsonScore(), CallScore()):
        assert score.score(deep, "f(a=1)" if isinstance(score, CallScore) else "[1]") == 0.0
        assert score.fields(deep, "f(a=1)" if isinstance(score, CallScore) else "[1]") == 0.0
        score.can_score(deep)

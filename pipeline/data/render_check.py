"""Whether a rendered conversation has all that its row says: a chat template is free to drop or
rewrite any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.data.conversations import Turn
from pipeline.data.fields import function_of
from pipeline.errors import RowError

REWRITTEN = "rewritten by the chat template"


def require_all_rendered(turns: Sequence[Turn], whole: str, answers: Mapping[int, str]) -> None:
    """Compare what a chat template wrote with what the row says, white space at the edges aside.

    Args:
        turns: of the row.
        whole: all of them, rendered.
        answers: what was rendered of each assistant's turn, by the turn's number.

    Raises:
        RowError: names the turn and the field that is not in the text.
    """
    for number, turn in enumerate(turns):
        for what, words in _words_of(turn):
            _require(words, answers.get(number, whole), f"turn {number} ({turn.role})", what)


def _require(words: str, text: str, turn: str, what: str) -> None:
    if not any(
        form in text
        for form in (words, json.dumps(words)[1:-1], json.dumps(words, ensure_ascii=False)[1:-1])
    ):
        shown = words if len(words) <= 40 else words[:37] + "…"
        raise RowError(
            f"the tokenizer's chat template drops or rewrites {what} of {turn}: {shown!r} is not in"
            " what it wrote; use --template paper",
            REWRITTEN,
        )


def _words_of(turn: Turn) -> Iterator[tuple[str, str]]:
    """The texts that a turn is made of, each with the name of its field."""
    if turn.role == "tools":
        for function in map(function_of, json.loads(turn.text)):
            yield "the function", str(function["name"])
            yield "a function's description", str(function.get("description") or "").strip()
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            yield from (
                ("a function's parameters", str(name))
                for name in (properties if isinstance(properties, dict) else ())
            )
        return
    yield "the content", turn.text.strip()
    extra = turn.extra
    yield "the reasoning_content", str(extra.get("reasoning_content", "")).strip()
    for call in extra.get("tool_calls", ()):
        yield "a tool_call's name", str(call["function"]["name"])
        yield from (
            ("a tool_call's arguments", words) for words in _leaves(call["function"]["arguments"])
        )


def _leaves(value: Any) -> Iterator[str]:
    """The texts and numbers within a JSON value, and the names of its fields."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value.strip()
    elif type(value) in (int, float):
        yield json.dumps(value)

"""A check that a rendered conversation contains all of its row's content.

A chat template is free to drop or rewrite any of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.data.conversations import Turn
from pipeline.data.fields import function_of
from pipeline.errors import RowError

REWRITTEN = "rewritten by the chat template"


def require_all_rendered(turns: Sequence[Turn], whole: str, answers: Mapping[int, str]) -> None:
    """Require each field of a row in its rendered text, apart from white space at the edges.

    Args:
        turns: of the row.
        whole: the rendered conversation.
        answers: the rendered text of each assistant turn, by the turn's index.

    Raises:
        RowError: names the turn and the field that is missing.
    """
    for index, turn in enumerate(turns):
        for field, value in _fields(turn):
            _require(value, answers.get(index, whole), f"turn {index} ({turn.role})", field)


def _require(value: str, rendered: str, turn: str, field: str) -> None:
    encodings = (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    if not any(encoding in rendered for encoding in encodings):
        excerpt = value if len(value) <= 40 else value[:37] + "…"
        raise RowError(
            f"the tokenizer's chat template drops or rewrites {field} of {turn}: its output lacks"
            f" {excerpt!r}; use --template paper",
            REWRITTEN,
        )


def _fields(turn: Turn) -> Iterator[tuple[str, str]]:
    """Yield name and value of each text in a turn."""
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
            ("a tool_call's arguments", leaf) for leaf in _leaves(call["function"]["arguments"])
        )


def _leaves(value: Any) -> Iterator[str]:
    """Yield the texts, numbers and field names within a JSON value."""
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

"""Scores that compare structures: JSON values and function calls."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.scoring.final_part import final_part
from pipeline.scoring.interface import Score

_FENCE = re.compile(r"```(?:json|python)?\s*\n?(.*?)```", re.DOTALL)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_NAMES = {"true": True, "false": False, "null": None, "none": None}
_MAX_CHARACTERS = 20_000
"""Longest text that is parsed as calls."""


class NoStructureError(ValueError):
    """The text is neither JSON nor a call."""


@dataclass(frozen=True)
class JsonScore(Score):
    """Equality of JSON values."""

    name = "json"
    definition = (
        "1 if the answer is the same JSON value as the reference; the order of keys is free, and 1"
        " equals 1.0"
    )

    def can_score(self, reference: str) -> bool:
        """Return whether a reference is JSON."""
        return _parse(json_value, reference) is not None

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the values are equal, else 0."""
        return _equal(json_value, answer, reference)

    def fields(self, answer: str, reference: str) -> float:
        """Return the share of values, of both texts, that are equal at the same path."""
        return _equal_fields(json_value, answer, reference)


@dataclass(frozen=True)
class CallScore(Score):
    """Equality of function calls."""

    name = "call"
    definition = (
        "1 if the answer has the same calls as the reference in the same order, with equal names"
        ' and arguments; named arguments may be in any order; written as Name(key="value"), or as'
        " JSON with name and arguments"
    )

    def can_score(self, reference: str) -> bool:
        """Return whether a reference consists of calls."""
        return _parse(calls, reference) is not None

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the calls are equal, else 0."""
        return _equal(calls, answer, reference)

    def fields(self, answer: str, reference: str) -> float:
        """Return the share of names and arguments, of both texts, that are equal."""
        return _equal_fields(calls, answer, reference)


def json_value(text: str) -> Any:
    """Return the JSON value of a text, or of its only fenced block.

    Raises:
        NoStructureError: the text is not JSON.
    """
    text = final_part(text)
    blocks = _FENCE.findall(text)
    try:
        return json.loads(blocks[0] if len(blocks) == 1 else text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NoStructureError(str(error)) from error


def calls(text: str) -> list[Any]:
    """Return the calls in a text, each as its name and arguments.

    Raises:
        NoStructureError: the text does not consist of calls.
    """
    text = final_part(text)
    blocks = _FENCE.findall(text)
    text = (blocks[0] if len(blocks) == 1 else text).strip()
    if len(text) > _MAX_CHARACTERS:
        raise NoStructureError("too long")
    tagged = _TOOL_CALL.findall(text)
    try:
        parsed = [call for part in tagged or [text] for call in _json_calls(json_value(part))]
    except NoStructureError:
        if tagged:
            raise
        parsed = list(_python_calls(text))
    if not parsed:
        raise NoStructureError("no call")
    return parsed


def is_json_container(text: str) -> bool:
    """Return whether a text is a JSON object or array."""
    leaves = _parse(json_value, text)
    return leaves is not None and leaves.get((), ("dict", ""))[0] in ("dict", "list")


def _json_calls(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else [value]:
        call = item.get("function", item) if isinstance(item, dict) else None
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise NoStructureError("no call with a name")
        arguments = call.get("arguments", call.get("parameters", {}))
        yield {
            "name": call["name"],
            "arguments": json_value(arguments) if isinstance(arguments, str) else arguments,
        }


def _python_calls(text: str) -> Iterator[Any]:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoStructureError(str(error)) from error
    for statement in body:
        if not isinstance(statement, ast.Expr):
            raise NoStructureError("a statement other than a call")
        listed = (
            statement.value.elts
            if isinstance(statement.value, (ast.List, ast.Tuple))
            else [statement.value]
        )
        yield from (_call(node) for node in listed)


def _call(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        raise NoStructureError("an expression other than a call")
    arguments: dict[str, Any] = {str(index): _value(value) for index, value in enumerate(node.args)}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise NoStructureError("an argument without a unique name")
        arguments[keyword.arg] = _value(keyword.value)
    return {"name": ast.unparse(node.func), "arguments": arguments}


def _value(node: ast.expr) -> Any:
    """Return an argument: a literal of Python or JSON, or a call."""
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name):
        if node.id in _NAMES:
            return _NAMES[node.id]
        raise NoStructureError(f"{node.id} is not a literal")
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key) for key in node.keys]
        return {str(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise NoStructureError(str(error)) from error
    if not isinstance(value, (str, int, float, bool, type(None))):
        raise NoStructureError(f"JSON has no {type(value).__name__}")
    return value


Leaves = dict[tuple[str | int, ...], tuple[str, Any]]
"""Type and value of each scalar or empty container within a value, by its path."""


@lru_cache(maxsize=4096)
def _parse(parser: Callable[[str], Any], text: str) -> Leaves | None:
    """Return the leaves of a text's structure, or None if it has none or is nested too deeply."""
    try:
        return _leaves(parser(text))
    except (NoStructureError, RecursionError):
        return None


def _equal(parser: Callable[[str], Any], answer: str, reference: str) -> float:
    actual = _parse(parser, answer)
    return float(actual is not None and actual == _parse(parser, reference))


def _equal_fields(parser: Callable[[str], Any], answer: str, reference: str) -> float:
    actual, expected = _parse(parser, answer), _parse(parser, reference)
    if actual is None or expected is None:
        return 0.0
    paths = actual.keys() | expected.keys()
    return sum(actual.get(path) == expected.get(path) for path in paths) / len(paths)


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Leaves:
    """Return the leaves of a value; as their types differ, `True` is not 1."""
    if isinstance(value, dict) and value:
        return {
            key: leaf
            for name, item in value.items()
            for key, leaf in _leaves(item, (*path, str(name))).items()
        }
    if isinstance(value, list) and value:
        return {
            key: leaf
            for index, item in enumerate(value)
            for key, leaf in _leaves(item, (*path, index)).items()
        }
    kind = "number" if type(value) in (int, float) else type(value).__name__
    return {path: (kind, str(value) if isinstance(value, (dict, list)) else value)}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")

"""Scores of structure: JSON values, and calls of functions."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.scoring.final_part import final_part
from pipeline.scoring.interface import Score

_FENCE = re.compile(r"```(?:json|python)?\s*\n?(.*?)```", re.DOTALL)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_NAMES = {"true": True, "false": False, "null": None, "none": None}
_LONGEST = 20_000
"""Characters of a structure that are parsed."""


class NoStructureError(ValueError):
    """A text is no JSON, or no call."""


@dataclass(frozen=True)
class JsonScore(Score):
    """A JSON value."""

    name = "json"
    definition = (
        "1 where the answer is the reference's JSON value: the order of keys is free, 1 and 1.0 are"
        " the same"
    )

    def can_score(self, reference: str) -> bool:
        """Whether a reference is JSON."""
        return _readable(json_value, reference)

    def score(self, answer: str, reference: str) -> float:
        """Whether the values are the same."""
        return _same(json_value, answer, reference)

    def fields(self, answer: str, reference: str) -> float:
        """The share of the values in both, by their place, that are the same."""
        return _right_fields(json_value, answer, reference)


@dataclass(frozen=True)
class CallScore(Score):
    """Calls of functions."""

    name = "call"
    definition = (
        "1 where the answer makes the reference's calls, in their order: names and arguments are"
        ' the same, the order of named arguments is free; as Name(key="value"), or as JSON with'
        " name and arguments"
    )

    def can_score(self, reference: str) -> bool:
        """Whether a reference is one or several calls."""
        return _readable(calls, reference)

    def score(self, answer: str, reference: str) -> float:
        """Whether the calls are the same."""
        return _same(calls, answer, reference)

    def fields(self, answer: str, reference: str) -> float:
        """The share of names and arguments in both that are the same."""
        return _right_fields(calls, answer, reference)


def json_value(text: str) -> Any:
    """The JSON value that a text is, or that its only fenced block is.

    Raises:
        NoStructureError: it is none.
    """
    text = final_part(text)
    blocks = _FENCE.findall(text)
    try:
        return json.loads(blocks[0] if len(blocks) == 1 else text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NoStructureError(str(error)) from error


def calls(text: str) -> list[Any]:
    """The calls that a text makes, each as its name and arguments.

    Raises:
        NoStructureError: it makes none, or has something else beside them.
    """
    text = final_part(text)
    blocks = _FENCE.findall(text)
    text = (blocks[0] if len(blocks) == 1 else text).strip()
    if len(text) > _LONGEST:
        raise NoStructureError("too long")
    tagged = _TOOL_CALL.findall(text)
    try:
        found = [call for part in tagged or [text] for call in _json_calls(json_value(part))]
    except NoStructureError:
        if tagged:
            raise
        found = list(_python_calls(text))
    if not found:
        raise NoStructureError("no call")
    return found


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
            raise NoStructureError("a statement that is no call")
        listed = (
            statement.value.elts
            if isinstance(statement.value, (ast.List, ast.Tuple))
            else [statement.value]
        )
        yield from (_call(node) for node in listed)


def _call(node: ast.expr) -> Any:
    if not isinstance(node, ast.Call):
        raise NoStructureError("an expression that is no call")
    arguments: dict[str, Any] = {str(place): _value(value) for place, value in enumerate(node.args)}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise NoStructureError("an argument without a name of its own")
        arguments[keyword.arg] = _value(keyword.value)
    return {"name": ast.unparse(node.func), "arguments": arguments}


def _value(node: ast.expr) -> Any:
    """An argument: a literal of Python or JSON, or a call."""
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name):
        if node.id in _NAMES:
            return _NAMES[node.id]
        raise NoStructureError(f"{node.id} is no value")
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
        raise NoStructureError(f"a {type(value).__name__} is no value of JSON")
    return value


Reader = Callable[[str], Any]


def _read_leaves(read: Reader, text: str) -> dict[tuple[Any, ...], Any]:
    """The single values of a text's structure, by their place.

    Raises:
        NoStructureError: it has none, or nests too deep.
    """
    try:
        return _leaves(read(text))
    except RecursionError as error:
        raise NoStructureError("nests too deep") from error


def _readable(read: Reader, text: str) -> bool:
    try:
        _read_leaves(read, text)
    except NoStructureError:
        return False
    return True


def _same(read: Reader, answer: str, reference: str) -> float:
    try:
        return float(_read_leaves(read, answer) == _read_leaves(read, reference))
    except NoStructureError:
        return 0.0


def _right_fields(read: Reader, answer: str, reference: str) -> float:
    try:
        found = _read_leaves(read, answer)
    except NoStructureError:
        return 0.0
    wanted = _read_leaves(read, reference)
    places = found.keys() | wanted.keys()
    right = [
        place
        for place in places
        if place in found and place in wanted and found[place] == wanted[place]
    ]
    return len(right) / len(places)


def _leaves(value: Any, place: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Each single value within a value, by its place; of another type than a number, `True` is not
    1."""
    if isinstance(value, dict) and value:
        return {
            key: leaf
            for name, item in value.items()
            for key, leaf in _leaves(item, (*place, str(name))).items()
        }
    if isinstance(value, list) and value:
        return {
            key: leaf
            for number, item in enumerate(value)
            for key, leaf in _leaves(item, (*place, number)).items()
        }
    kind = "number" if type(value) in (int, float) else type(value).__name__
    return {place: (kind, str(value) if isinstance(value, (dict, list)) else value)}


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")

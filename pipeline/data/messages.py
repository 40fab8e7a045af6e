"""Lists of messages in chat data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.conversations import REASONING_FIELDS, Role, Turn
from pipeline.data.fields import has_content, json_of, text_of
from pipeline.data.json_rows import parse_row
from pipeline.errors import RowError

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_KEYS = (("role", "content"), ("from", "value"))
"""Names of a message's role and text: OpenAI's, and ShareGPT's."""
_WEIGHTS = ("weight", "train", "training", "trainable", "loss")
"""Fields that decide whether an assistant message carries loss."""
_RENDERED = ("tool_call_id", "name")
_REFUSED = {
    "function_call": "use 'tool_calls'",
    "audio": "omit it, as only text is supported",
    "images": "omit it, as only text is supported",
}
MESSAGE_FIELDS = {name for pair in _KEYS for name in pair} | {
    *REASONING_FIELDS,
    *_WEIGHTS,
    *_REFUSED,
    "tool_calls",
}
"""The fields of a message that are always used; a template may ignore `name` and `tool_call_id`."""


def messages_of(row: Mapping[str, Any], field: str) -> tuple[Turn, ...]:
    """Return the turns of a list of messages, with `role` and `content` or `from` and `value`.

    Raises:
        RowError: names the message and the field at fault.
    """
    messages = row.get(field)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RowError(
            f"field {field!r} is {'missing' if messages is None else 'not a list of messages'}"
        )
    return tuple(_turn(message, f"{field}[{index}]") for index, message in enumerate(messages))


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise RowError(f"field {where} is not a message with 'role' and 'content'")
    role_field, text_field = next(
        (pair for pair in _KEYS if message.get(pair[0]) is not None), _KEYS[0]
    )
    for one, two in zip(*_KEYS, strict=True):
        if (
            message.get(one) is not None
            and message.get(two) is not None
            and message[one] != message[two]
        ):
            raise RowError(f"fields {where}.{one} and {where}.{two} differ; keep one of them")
    name = text_of(message, role_field, f"{where}.")
    if name not in _ROLES:
        raise RowError(
            f"field '{where}.{role_field}' is {name!r}; known roles: {', '.join(_ROLES)}"
        )
    role = _ROLES[name]
    for field, fix in _REFUSED.items():
        if has_content(message.get(field)):
            raise RowError(f"field '{where}.{field}' is not supported; {fix}")
    extra = {
        key: text_of(message, key, f"{where}.")
        for key in _RENDERED
        if has_content(message.get(key))
    }
    if role == "assistant":
        extra |= _reasoning(message, where) | _tool_calls(message, where)
    elif misplaced := next(
        (key for key in (*REASONING_FIELDS, "tool_calls") if has_content(message.get(key))), None
    ):
        raise RowError(
            f"field '{where}.{misplaced}' is only allowed in an assistant message, and this one has"
            f" the role {name!r}"
        )
    text = text_of(
        message, text_field, f"{where}.", may_be_empty=role == "tool" or "tool_calls" in extra
    )
    fields = json.dumps(extra, ensure_ascii=False) if extra else ""
    return Turn(role, text, fields, learn=_is_learned(message, where))


def _reasoning(message: Mapping[str, Any], where: str) -> dict[str, str]:
    fields = {
        name: text_of(message, name, f"{where}.")
        for name in REASONING_FIELDS
        if has_content(message.get(name))
    }
    if len({*fields.values()}) > 1:
        names = ", ".join(f"{where}.{name}" for name in fields)
        raise RowError(f"fields {names} differ; keep one of them")
    return {"reasoning_content": next(iter(fields.values()))} if fields else {}


def _tool_calls(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the calls, each with its function's name and arguments."""
    if not has_content(message.get("tool_calls")):
        return {}
    field = f"{where}.tool_calls"
    calls = json_of(message["tool_calls"], field)
    if not isinstance(calls, list):
        raise RowError(f"field '{field}' is not a list of calls")
    return {"tool_calls": [_call(call, f"{field}[{index}]") for index, call in enumerate(calls)]}


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"field '{where}' is not a call of a function with a 'name'")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _object_or_text(arguments)
    unused = {*call} - {"id", "type", "index", "function", "name", "arguments"} | {*function} - {
        "name",
        "arguments",
        *call,
    }
    fields = {**call, **function}
    if extra := next(
        (key for key in sorted(map(str, unused)) if has_content(fields.get(key))), None
    ):
        raise RowError(
            f"field '{where}.{extra}' is not supported; keep a call's name and arguments only"
        )
    kept = {
        key: value for key, value in call.items() if key in ("id", "type") and has_content(value)
    }
    return {
        "type": "function",
        **kept,
        "function": {"name": function["name"], "arguments": {} if arguments is None else arguments},
    }


def _object_or_text(text: str) -> dict[str, Any] | str:
    """Return the JSON object that a text represents losslessly, or else the text itself."""
    parsed = parse_row(text, "")
    try:
        return text if isinstance(parsed, RowError) else json_of(parsed, "arguments")
    except RowError:
        return text


def _is_learned(message: Mapping[str, Any], where: str) -> bool:
    learned = True
    for name in _WEIGHTS:
        value = message.get(name)
        if value is None:
            continue
        if value not in (0, 1):
            raise RowError(
                f"field '{where}.{name}' is {value!r}; use 1 or true for a message to learn, 0 or"
                " false otherwise"
            )
        learned = learned and bool(value)
    return learned

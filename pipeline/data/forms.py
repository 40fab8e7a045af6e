"""The forms that rows come in, by their columns, and how each becomes a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pipeline.data.conversations import Role, Turn

Row = Mapping[str, Any]
FormName = Literal["stratos", "chat", "gsm8k", "text"]

_COLUMNS: dict[FormName, tuple[str, ...]] = {
    "stratos": ("conversations",),
    "chat": ("messages",),
    "gsm8k": ("question", "answer"),
    "text": ("text",),
}
FORM_NAMES: tuple[FormName, ...] = tuple(_COLUMNS)
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


class MalformedRowError(ValueError):
    """A row does not have the form it should; the text names the field."""


def detect_form(columns: Sequence[str]) -> FormName | None:
    """The first known form whose columns are all there, or None."""
    return next((form for form, needed in _COLUMNS.items() if set(needed) <= set(columns)), None)


def describe_forms() -> str:
    """The known forms with their columns, for messages and help."""
    return "; ".join(f"{form}: {', '.join(needed)}" for form, needed in _COLUMNS.items())


def turns_of(row: Row, form: FormName) -> tuple[Turn, ...]:
    """The turns of a row of a known form.

    Raises:
        MalformedRowError: a field is missing, empty, of the wrong type, or names an unknown role.
    """
    return _READERS[form](row)


def _stratos(row: Row) -> tuple[Turn, ...]:
    system = (Turn("system", _text(row, "system")),) if row.get("system") else ()
    return system + _messages(row, "conversations", "from", "value")


def _chat(row: Row) -> tuple[Turn, ...]:
    return _messages(row, "messages", "role", "content")


def _gsm8k(row: Row) -> tuple[Turn, ...]:
    return (Turn("user", _text(row, "question")), Turn("assistant", _text(row, "answer")))


def _plain(row: Row) -> tuple[Turn, ...]:
    return (Turn("text", _text(row, "text")),)


_READERS: dict[FormName, Callable[[Row], tuple[Turn, ...]]] = {
    "stratos": _stratos,
    "chat": _chat,
    "gsm8k": _gsm8k,
    "text": _plain,
}


def _text(row: Row, field: str, where: str = "") -> str:
    value = row.get(field)
    if not isinstance(value, str):
        found = "missing" if value is None else f"of type {type(value).__name__}, not text"
        raise MalformedRowError(f"field {where + field!r} is {found}")
    if not value.strip():
        raise MalformedRowError(f"field {where + field!r} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MalformedRowError(f"field {where + field!r} holds a broken character ({error.reason})") from error
    return value


def _messages(row: Row, field: str, role_field: str, text_field: str) -> tuple[Turn, ...]:
    messages = row.get(field)
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise MalformedRowError(f"field {field!r} is not a list of messages")
    turns = []
    for index, message in enumerate(messages):
        where = f"{field}[{index}]."
        if not isinstance(message, Mapping):
            raise MalformedRowError(f"field {field}[{index}] is not a message with {role_field!r} and {text_field!r}")
        role = _text(message, role_field, where)
        if role not in _ROLES:
            raise MalformedRowError(f"field {where + role_field!r} is {role!r}; known roles: {', '.join(_ROLES)}")
        turns.append(Turn(_ROLES[role], _text(message, text_field, where)))
    return tuple(turns)

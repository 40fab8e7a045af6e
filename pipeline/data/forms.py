"""Forms of rows: which columns identify each, and how it becomes turns or tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.data.conversations import TokenRow, Turn
from pipeline.data.fields import has_content, text_of, tokens_of, tools_of
from pipeline.data.messages import MESSAGE_FIELDS, messages_of

Row = Mapping[str, Any]
FormName = Literal["tokens", "stratos", "chat", "gsm8k", "completion", "instruction", "text"]


@dataclass(frozen=True)
class Form:
    """A form of rows.

    Attributes:
        columns: the columns that identify the form; any one name of a tuple is enough.
        read: turns a row into turns or tokens. Raises `RowError`.
        optional: further columns that `read` uses if they exist.
        messages: columns with lists of messages.
    """

    columns: tuple[str | tuple[str, ...], ...]
    read: Callable[[Row], tuple[Turn, ...] | TokenRow]
    optional: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    def fits(self, columns: Sequence[str]) -> bool:
        """Return whether all columns of this form exist."""
        return all(any(name in columns for name in _names(column)) for column in self.columns)

    @property
    def used_columns(self) -> set[str]:
        """Return all columns that the form reads."""
        return {name for column in self.columns for name in _names(column)} | {*self.optional}

    def describe(self) -> str:
        """Return the columns that identify the form, for messages and help."""
        return ", ".join(" or ".join(_names(column)) for column in self.columns)


def detect_form(columns: Sequence[str]) -> FormName | None:
    """Return the first form whose columns all exist, or None."""
    return next((name for name, form in FORMS.items() if form.fits(columns)), None)


def describe_forms() -> str:
    """Return the known forms with their columns, for messages and help."""
    return "; ".join(f"{name}: {form.describe()}" for name, form in FORMS.items())


def read_row(row: Row, form: FormName) -> tuple[Turn, ...] | TokenRow:
    """Return the turns of a row, or its tokens.

    Raises:
        RowError: a field is missing, empty, of another type, or names an unknown role.
    """
    return FORMS[form].read(row)


def ignored_fields(row: Row, form: FormName) -> Iterator[str]:
    """Yield the names of columns and message fields with content that a form does not read."""
    used = FORMS[form].used_columns
    yield from (str(name) for name, value in row.items() if name not in used and has_content(value))
    for column in FORMS[form].messages:
        messages = row.get(column)
        fields = {
            str(name): name
            for message in (messages if isinstance(messages, Sequence) else ())
            if isinstance(message, Mapping)
            for name, value in message.items()
            if name not in MESSAGE_FIELDS and has_content(value)
        }
        yield from (f"{column}[].{name}" for name in fields)


def _names(column: str | tuple[str, ...]) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _stratos(row: Row) -> tuple[Turn, ...]:
    system = (Turn("system", text_of(row, "system")),) if row.get("system") else ()
    return (*tools_of(row), *system, *messages_of(row, "conversations"))


def _chat(row: Row) -> tuple[Turn, ...]:
    return (*tools_of(row), *messages_of(row, "messages"))


def _gsm8k(row: Row) -> tuple[Turn, ...]:
    return (Turn("user", text_of(row, "question")), Turn("assistant", text_of(row, "answer")))


def _completion(row: Row) -> tuple[Turn, ...]:
    """Read TRL's form: two texts or two lists of messages; only the completion is learned."""
    prompt = (
        replace(turn, learn=False) if turn.role == "assistant" else turn
        for turn in _text_or_messages(row, "prompt", "user")
    )
    return (*tools_of(row), *prompt, *_text_or_messages(row, "completion", "assistant"))


def _text_or_messages(row: Row, field: str, role: Literal["user", "assistant"]) -> tuple[Turn, ...]:
    return (
        (Turn(role, text_of(row, field)),)
        if isinstance(row.get(field), str)
        else messages_of(row, field)
    )


def _instruction(row: Row) -> tuple[Turn, ...]:
    """Read Alpaca's form; an `input` follows the instruction after an empty line."""
    request = text_of(row, "instruction")
    if has_content(row.get("input")):
        request += "\n\n" + text_of(row, "input")
    system = (Turn("system", text_of(row, "system")),) if row.get("system") else ()
    return (*system, Turn("user", request), Turn("assistant", text_of(row, "output")))


def _plain(row: Row) -> tuple[Turn, ...]:
    return (Turn("text", text_of(row, "text")),)


FORMS: dict[FormName, Form] = {
    "tokens": Form(("input_ids", ("loss_mask", "labels")), tokens_of, optional=("attention_mask",)),
    "stratos": Form(
        ("conversations",), _stratos, optional=("system", "tools"), messages=("conversations",)
    ),
    "chat": Form(("messages",), _chat, optional=("tools",), messages=("messages",)),
    "gsm8k": Form(("question", "answer"), _gsm8k),
    "completion": Form(
        ("prompt", "completion"),
        _completion,
        optional=("tools",),
        messages=("prompt", "completion"),
    ),
    "instruction": Form(("instruction", "output"), _instruction, optional=("input", "system")),
    "text": Form(("text",), _plain),
}
"""In order of detection: a form with more columns precedes one with fewer."""
FORM_NAMES: tuple[FormName, ...] = tuple(FORMS)

"""The forms that rows come in, by their columns, and how each becomes turns or tokens."""

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
        columns: the columns that identify it; of a group of names any one is enough.
        also: further columns that its reader uses where they are there.
        read: from a row to its turns, or to its tokens. Raises `RowError`.
        messages: columns that hold lists of messages.
    """

    columns: tuple[str | tuple[str, ...], ...]
    read: Callable[[Row], tuple[Turn, ...] | TokenRow]
    also: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    def fits(self, columns: Sequence[str]) -> bool:
        """Whether these columns are of this form."""
        return all(any(name in columns for name in _names(needed)) for needed in self.columns)

    @property
    def used(self) -> set[str]:
        """All columns that are read."""
        return {name for needed in self.columns for name in _names(needed)} | {*self.also}

    def describe(self) -> str:
        """The columns that identify it, for messages and help."""
        return ", ".join(" or ".join(_names(needed)) for needed in self.columns)


def detect_form(columns: Sequence[str]) -> FormName | None:
    """The first known form whose columns are all there, or None."""
    return next((name for name, form in FORMS.items() if form.fits(columns)), None)


def describe_forms() -> str:
    """The known forms with their columns, for messages and help."""
    return "; ".join(f"{name}: {form.describe()}" for name, form in FORMS.items())


def read_row(row: Row, form: FormName) -> tuple[Turn, ...] | TokenRow:
    """The turns of a row of a known form, or its tokens.

    Raises:
        RowError: a field is missing, empty, of the wrong type, or names an unknown role.
    """
    return FORMS[form].read(row)


def ignored_fields(row: Row, form: FormName) -> Iterator[str]:
    """The columns and message fields with content that the form does not read."""
    known = FORMS[form]
    yield from (
        str(name) for name, value in row.items() if name not in known.used and has_content(value)
    )
    for column in known.messages:
        messages = row.get(column)
        fields = {
            str(name): name
            for message in (messages if isinstance(messages, Sequence) else ())
            if isinstance(message, Mapping)
            for name, value in message.items()
            if name not in MESSAGE_FIELDS and has_content(value)
        }
        yield from (f"{column}[].{name}" for name in fields)


def _names(needed: str | tuple[str, ...]) -> tuple[str, ...]:
    return (needed,) if isinstance(needed, str) else needed


def _stratos(row: Row) -> tuple[Turn, ...]:
    system = (Turn("system", text_of(row, "system")),) if row.get("system") else ()
    return (*tools_of(row), *system, *messages_of(row, "conversations"))


def _chat(row: Row) -> tuple[Turn, ...]:
    return (*tools_of(row), *messages_of(row, "messages"))


def _gsm8k(row: Row) -> tuple[Turn, ...]:
    return (Turn("user", text_of(row, "question")), Turn("assistant", text_of(row, "answer")))


def _completion(row: Row) -> tuple[Turn, ...]:
    """TRL's form: two texts, or two lists of messages; the completion alone is learned."""
    prompt = (
        replace(turn, learn=False) if turn.role == "assistant" else turn
        for turn in _side(row, "prompt", "user")
    )
    return (*tools_of(row), *prompt, *_side(row, "completion", "assistant"))


def _side(row: Row, field: str, role: Literal["user", "assistant"]) -> tuple[Turn, ...]:
    return (
        (Turn(role, text_of(row, field)),)
        if isinstance(row.get(field), str)
        else messages_of(row, field)
    )


def _instruction(row: Row) -> tuple[Turn, ...]:
    """Alpaca's form; `input`, where there is one, follows the instruction after an empty line."""
    request = text_of(row, "instruction")
    if has_content(row.get("input")):
        request += "\n\n" + text_of(row, "input")
    system = (Turn("system", text_of(row, "system")),) if row.get("system") else ()
    return (*system, Turn("user", request), Turn("assistant", text_of(row, "output")))


def _plain(row: Row) -> tuple[Turn, ...]:
    return (Turn("text", text_of(row, "text")),)


FORMS: dict[FormName, Form] = {
    "tokens": Form(("input_ids", ("loss_mask", "labels")), tokens_of, also=("attention_mask",)),
    "stratos": Form(
        ("conversations",), _stratos, also=("system", "tools"), messages=("conversations",)
    ),
    "chat": Form(("messages",), _chat, also=("tools",), messages=("messages",)),
    "gsm8k": Form(("question", "answer"), _gsm8k),
    "completion": Form(
        ("prompt", "completion"), _completion, also=("tools",), messages=("prompt", "completion")
    ),
    "instruction": Form(("instruction", "output"), _instruction, also=("input", "system")),
    "text": Form(("text",), _plain),
}
"""A row has the first form whose columns are all there: one with more columns comes before one with
fewer."""
FORM_NAMES: tuple[FormName, ...] = tuple(FORMS)

"""What a data set is made of, whatever its columns were called: conversations of turns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Role = Literal["tools", "system", "user", "assistant", "tool", "text"]
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""The names that data sets and chat templates give to an answer's thought."""


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: `text` is plain running text, outside any conversation; `tools` are the definitions of
            the functions that the assistant may call, as JSON; `tool` is what one of them returned.
        text: the message's content.
        fields: what else a chat template renders of the message, as a canonical JSON object:
            `reasoning_content`, `tool_calls`, `tool_call_id`, `name`. Empty where there is nothing
            else.
        learn: False for an assistant's turn that carries no loss.
    """

    role: Role
    text: str
    fields: str = ""
    learn: bool = True

    @property
    def extra(self) -> dict[str, Any]:
        """The further fields as an object."""
        return dict(json.loads(self.fields)) if self.fields else {}

    @property
    def is_answer(self) -> bool:
        """Whether a student learns to write this turn."""
        return self.role == "assistant" and self.learn

    @property
    def message(self) -> dict[str, Any]:
        """The message that a chat template renders. A thought is there under each name that
        templates give it."""
        extra = self.extra
        if thought := extra.pop("reasoning_content", None):
            extra |= dict.fromkeys(REASONING_FIELDS, thought)
        return {"role": self.role, "content": self.text, **extra}

    @property
    def plain_text(self) -> str:
        """The whole turn as text, for readers without a chat template.

        Thought and calls stand between the marks of Hermes and Qwen: `<think>`, `<tool_call>`.
        """
        extra = self.extra
        thought = (
            f"<think>\n{extra['reasoning_content']}\n</think>\n\n"
            if "reasoning_content" in extra
            else ""
        )
        calls = [
            f"<tool_call>\n{canonical(call.get('function', call))}\n</tool_call>"
            for call in extra.get("tool_calls", ())
        ]
        return thought + "\n".join([*([self.text] if self.text else []), *calls])


@dataclass(frozen=True)
class TokenRow:
    """A row that was tokenised elsewhere: token ids `[T]` int32 and loss mask `[T]` bool, taken as
    they are."""

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Conversation:
    """One row of a data set.

    Attributes:
        row_id: the row's index in its source, as a string.
        turns: in order; none where the row is tokenised already.
        tokens: the tokens of a row that is tokenised already.
        group: rows of the same group are never split between training and validation; empty for
            none.
        where: file and row, for messages.
    """

    row_id: str
    turns: tuple[Turn, ...]
    tokens: TokenRow | None = field(default=None, compare=False)
    group: str = field(default="", compare=False)
    where: str = field(default="", compare=False)

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """The turns before the last answer: the prompt of an evaluation. Empty for plain text."""
        return self.turns[: self._last_answer] if self._last_answer is not None else ()

    @property
    def reference(self) -> str:
        """The last answer's text, by the data set. Empty for plain text."""
        return self.turns[self._last_answer].plain_text if self._last_answer is not None else ""

    @property
    def _last_answer(self) -> int | None:
        return next(
            (place for place in range(len(self.turns) - 1, -1, -1) if self.turns[place].is_answer),
            None,
        )

    def canonical(self) -> bytes:
        """Row id and content as bytes that are the same for the same row, whatever release wrote
        them."""
        turns = [
            {"role": turn.role, "text": turn.text}
            | ({"fields": turn.fields} if turn.fields else {})
            | ({} if turn.learn else {"learn": False})
            for turn in self.turns
        ]
        content: dict[str, Any] = {"row_id": self.row_id, "turns": turns}
        if self.tokens is not None:
            content |= {
                "input_ids": self.tokens.input_ids.tolist(),
                "loss_mask": self.tokens.loss_mask.tolist(),
            }
        return json.dumps(content, sort_keys=True).encode()


def canonical(value: Any) -> str:
    """A JSON value as text, keys in their own order: it is read by people and models."""
    return json.dumps(value, ensure_ascii=False)

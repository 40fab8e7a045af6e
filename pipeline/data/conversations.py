"""Conversations of turns: the common representation of all forms of rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Role = Literal["tools", "system", "user", "assistant", "tool", "text"]
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names of an answer's reasoning in data sets and chat templates."""


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: `text` is plain text without a conversation; `tools` are the definitions of functions
            that the assistant may call, as JSON; `tool` is the result of a call.
        text: the content.
        fields: further fields that a chat template renders, as a JSON object:
            `reasoning_content`, `tool_calls`, `tool_call_id`, `name`. Empty if there are none.
        learn: False for an assistant turn that carries no loss.
    """

    role: Role
    text: str
    fields: str = ""
    learn: bool = True

    @property
    def extra(self) -> dict[str, Any]:
        """Return the further fields as an object."""
        return dict(json.loads(self.fields)) if self.fields else {}

    @property
    def is_answer(self) -> bool:
        """Return whether a student learns to write this turn."""
        return self.role == "assistant" and self.learn

    @property
    def message(self) -> dict[str, Any]:
        """Return the message for a chat template, its reasoning under every name in use."""
        extra = self.extra
        if reasoning := extra.pop("reasoning_content", None):
            extra |= dict.fromkeys(REASONING_FIELDS, reasoning)
        return {"role": self.role, "content": self.text, **extra}

    @property
    def plain_text(self) -> str:
        """Return the whole turn as text, for use without a chat template.

        Reasoning and calls are marked as by Hermes and Qwen: `<think>`, `<tool_call>`.
        """
        extra = self.extra
        reasoning = (
            f"<think>\n{extra['reasoning_content']}\n</think>\n\n"
            if "reasoning_content" in extra
            else ""
        )
        calls = [
            f"<tool_call>\n{json_text(call.get('function', call))}\n</tool_call>"
            for call in extra.get("tool_calls", ())
        ]
        return reasoning + "\n".join([*([self.text] if self.text else []), *calls])


@dataclass(frozen=True)
class TokenRow:
    """A row that is already tokenised: token ids `[T]` int32 and loss mask `[T]` bool."""

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Conversation:
    """One row of a data set.

    Attributes:
        row_id: the row's index in its source, as a string.
        turns: in order; empty if the row is already tokenised.
        tokens: the tokens of a row that is already tokenised.
        group: name of the row's group, which the split never divides; empty for none.
        where: file and row, for messages.
    """

    row_id: str
    turns: tuple[Turn, ...]
    tokens: TokenRow | None = field(default=None, compare=False)
    group: str = field(default="", compare=False)
    where: str = field(default="", compare=False)

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """Return the turns before the last answer; empty for plain text."""
        return self.turns[: self._last_answer] if self._last_answer is not None else ()

    @property
    def reference(self) -> str:
        """Return the text of the last answer in the data set; empty for plain text."""
        return self.turns[self._last_answer].plain_text if self._last_answer is not None else ""

    @property
    def _last_answer(self) -> int | None:
        return next(
            (place for place in range(len(self.turns) - 1, -1, -1) if self.turns[place].is_answer),
            None,
        )

    def canonical_bytes(self) -> bytes:
        """Return row id and content as bytes that are stable across releases."""
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


def json_text(value: Any) -> str:
    """Return a JSON value as readable text, keys in their original order."""
    return json.dumps(value, ensure_ascii=False)

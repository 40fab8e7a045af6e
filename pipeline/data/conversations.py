"""What a data set is made of, whatever its columns were called: conversations of turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "text"]


@dataclass(frozen=True)
class Turn:
    """One message. The role `text` stands for plain running text that nobody says to anybody."""

    role: Role
    text: str


@dataclass(frozen=True)
class Conversation:
    """One row of a data set: its row id (the row's index in its source, as a string) and its turns in order."""

    row_id: str
    turns: tuple[Turn, ...]

    @property
    def prompt_turns(self) -> tuple[Turn, ...]:
        """The turns before the last assistant turn: what a model is asked in evaluation. Empty for plain text."""
        for index in range(len(self.turns) - 1, -1, -1):
            if self.turns[index].role == "assistant":
                return self.turns[:index]
        return ()

    @property
    def reference(self) -> str:
        """The last assistant turn's text: what the data set says the answer is. Empty for plain text."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "assistant"), "")

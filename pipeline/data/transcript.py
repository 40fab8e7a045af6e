"""What a cached example says, beside its tokens: the turns that these were made from, as the
cache's text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from cache import Cache
from pipeline.data.conversations import Role, Turn
from pipeline.errors import InputError


@dataclass(frozen=True)
class Answer:
    """An assistant turn: which turn it is, and how many of the teacher's tokens come before it."""

    turn: int
    start: int


@dataclass(frozen=True)
class Transcript:
    """The turns of a conversation, and its answers as the teacher's tokens have them; none where
    nobody asks anything."""

    turns: tuple[Turn, ...]
    answers: tuple[Answer, ...]

    def prompt_of(self, answer: Answer) -> tuple[Turn, ...]:
        """The turns before an answer."""
        return self.turns[: answer.turn]

    def answer_text(self, answer: Answer) -> str:
        """What the answer says."""
        return self.turns[answer.turn].plain_text

    @property
    def learned_bytes(self) -> int:
        """Bytes of UTF-8 of the answers, or of text that nobody says."""
        words = [self.answer_text(answer) for answer in self.answers] or [
            turn.text for turn in self.turns if turn.role == "text"
        ]
        return sum(len(each.encode()) for each in words)

    def to_json(self) -> str:
        """As a cache keeps it."""
        turns = [_turn_as_list(turn) for turn in self.turns]
        return json.dumps(
            {"turns": turns, "answers": [[each.turn, each.start] for each in self.answers]},
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> Transcript:
        """Read what a cache has kept; `where` names it in errors.

        Raises:
            InputError: it is something else.
        """
        try:
            content = json.loads(text)
            turns = tuple(Turn(*turn) for turn in content["turns"])
            answers = tuple(Answer(turn, start) for turn, start in content["answers"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: the text of an example is not of this program's making ({error})"
            ) from error
        if not _is_sound(turns, answers):
            raise InputError(f"{where}: the text of an example contradicts itself")
        return cls(turns, answers)


def transcript_of(cache: Cache, index: int) -> Transcript:
    """What an example of a cache says.

    Raises:
        InputError: the cache keeps no texts of this program's making.
    """
    return Transcript.from_json(cache.text(index), f"{cache.address}: row {cache.row_ids[index]}")


def _turn_as_list(turn: Turn) -> list[str | bool]:
    """Role and text, and the rest where it is not as usual."""
    whole: list[str | bool] = [turn.role, turn.text, turn.fields, turn.learn]
    return whole if not turn.learn else whole[:3] if turn.fields else whole[:2]


def _is_sound_turn(turn: Turn) -> bool:
    if (
        turn.role not in get_args(Role)
        or not type(turn.text) is type(turn.fields) is str
        or type(turn.learn) is not bool
    ):
        return False
    try:
        return isinstance(turn.extra, dict)
    except (ValueError, RecursionError):
        return False


def _is_sound(turns: Sequence[Turn], answers: Sequence[Answer]) -> bool:
    return all(map(_is_sound_turn, turns)) and all(
        type(answer.turn) is type(answer.start) is int
        and 0 <= answer.turn < len(turns)
        and answer.start >= 0
        and turns[answer.turn].role == "assistant"
        for answer in answers
    )

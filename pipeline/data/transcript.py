"""Transcripts: the turns behind a cached example's tokens, stored as JSON with the example."""

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
    """An assistant turn: its index, and the number of the teacher's tokens before it."""

    turn: int
    start: int


@dataclass(frozen=True)
class Transcript:
    """The turns of a conversation, and its answers' positions in the teacher's tokens."""

    turns: tuple[Turn, ...]
    answers: tuple[Answer, ...]

    def prompt_of(self, answer: Answer) -> tuple[Turn, ...]:
        """Return the turns before an answer."""
        return self.turns[: answer.turn]

    def answer_text(self, answer: Answer) -> str:
        """Return the text of an answer."""
        return self.turns[answer.turn].plain_text

    @property
    def learned_bytes(self) -> int:
        """Return the length in UTF-8 bytes of the answers, or of plain text."""
        texts = [self.answer_text(answer) for answer in self.answers] or [
            turn.text for turn in self.turns if turn.role == "text"
        ]
        return sum(len(text.encode()) for text in texts)

    def to_json(self) -> str:
        """Return the transcript in the cache's format."""
        turns = [_turn_as_list(turn) for turn in self.turns]
        answers = [[answer.turn, answer.start] for answer in self.answers]
        return json.dumps({"turns": turns, "answers": answers}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Transcript:
        """Return the transcript in a cached text; `where` names it in messages.

        Raises:
            InputError: the text is not a transcript.
        """
        try:
            content = json.loads(text)
            turns = tuple(Turn(*turn) for turn in content["turns"])
            answers = tuple(Answer(turn, start) for turn, start in content["answers"])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{where}: the text is not a transcript ({error}); extract the cache again"
            ) from error
        if not _is_valid(turns, answers):
            raise InputError(f"{where}: the transcript is invalid; extract the cache again")
        return cls(turns, answers)


def transcript_of(cache: Cache, index: int) -> Transcript:
    """Return the transcript of a cached example.

    Raises:
        InputError: the cache has no transcripts.
    """
    return Transcript.from_json(cache.text(index), f"{cache.address}: row {cache.row_ids[index]}")


def _turn_as_list(turn: Turn) -> list[str | bool]:
    """Return role and text, then further fields and `learn` unless they have their defaults."""
    whole: list[str | bool] = [turn.role, turn.text, turn.fields, turn.learn]
    return whole if not turn.learn else whole[:3] if turn.fields else whole[:2]


def _is_valid_turn(turn: Turn) -> bool:
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


def _is_valid(turns: Sequence[Turn], answers: Sequence[Answer]) -> bool:
    return all(map(_is_valid_turn, turns)) and all(
        type(answer.turn) is type(answer.start) is int
        and 0 <= answer.turn < len(turns)
        and answer.start >= 0
        and turns[answer.turn].role == "assistant"
        for answer in answers
    )

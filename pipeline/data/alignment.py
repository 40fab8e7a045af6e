"""Alignment of two tokenisations of a prompt: the teacher's tokens that each of ours may read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import locate_prompt_tokens
from pipeline.data.templates import TemplateName, render_prompt
from pipeline.data.tokens import LocatedTokens, locate_prompt
from pipeline.errors import InputError, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FIRST_MARK = 0xE000
"""A private character of Unicode; texts of data sets seldom have any."""


@dataclass(frozen=True)
class TeacherReading:
    """How a teacher reads prompts."""

    template: TemplateName
    tokenizer: PreTrainedTokenizerBase

    def locate(self, turns: Sequence[Turn]) -> LocatedTokens:
        """Return the teacher's tokens of a prompt."""
        return locate_prompt(turns, self.template, self.tokenizer)


@dataclass(frozen=True)
class AlignedPrompt:
    """A prompt in student tokens.

    Attributes:
        ids: the tokens.
        places: for each token, the index of the last teacher token that ends within or before it;
            -1 if there is none. Later text never affects that token's hidden state.
    """

    ids: list[int]
    places: list[int]


def align_prompt(
    turns: Sequence[Turn],
    teacher: TeacherReading,
    theirs: LocatedTokens,
    tokenizer: PreTrainedTokenizerBase,
) -> AlignedPrompt:
    """Return a prompt in student tokens, aligned with the teacher's.

    The two may have other tokenizers and templates: positions are compared within the text of each
    turn. A token between two turns reads the end of the earlier one, a token after the last turn
    the end of the prompt.

    Args:
        turns: of the prompt.
        teacher: how it reads prompts.
        theirs: the teacher's tokens of this one.
        tokenizer: the student's.

    Raises:
        InputError: a tokenizer does not tell where its tokens end.
    """
    ours = locate_prompt_tokens(turns, tokenizer)
    for located, whose in ((ours, "student"), (theirs, "teacher")):
        if located.ends is None:
            raise InputError(
                f"--join add: the {whose}'s tokenizer does not tell where its tokens end in the"
                " text; use --join cross, or a fast tokenizer"
            )
    assert ours.ends is not None and theirs.ends is not None
    our_starts = _starts(turns, ours.text, "paper", tokenizer)
    their_starts = _starts(turns, theirs.text, teacher.template, teacher.tokenizer)
    passages = [
        _Passage(our_start, their_start, len(turn.text.strip()))
        for turn, our_start, their_start in zip(turns, our_starts, their_starts, strict=True)
        if our_start is not None and their_start is not None
    ]
    last = len(theirs.text)
    return AlignedPrompt(
        ids=ours.ids,
        places=[bisect_right(theirs.ends, _position(end, passages, last)) - 1 for end in ours.ends],
    )


@dataclass(frozen=True)
class _Passage:
    """A text that occurs in both renderings: its beginning in each, and its length."""

    ours: int
    theirs: int
    length: int


def _starts(
    turns: Sequence[Turn], text: str, template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[int | None]:
    """Return where the text of each turn begins in the rendered prompt; None if it is not there.

    What the template puts before each turn is seen in a rendering of placeholders. Without it, a
    turn such as `user` would be found in a heading.
    """
    before = _texts_before(turns, template, tokenizer)
    starts: list[int | None] = []
    place = 0
    for turn, prefix in zip(turns, before, strict=True):
        content = turn.text.strip()
        found = text.find(prefix, place)
        start = text.find(content, place if found < 0 else found + len(prefix))
        if not content or start < 0:
            starts.append(None)
            continue
        starts.append(start)
        place = start + len(content)
    return starts


def _texts_before(
    turns: Sequence[Turn], template: TemplateName, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Return what a template puts between the texts of turns, one text per turn."""
    marks = [chr(_FIRST_MARK + number) * 2 for number in range(len(turns))]
    marked = [replace(turn, text=mark) for turn, mark in zip(turns, marks, strict=True)]
    try:
        rest = "".join(part.text for part in render_prompt(marked, template, tokenizer))
    except RowError:
        return [""] * len(turns)
    before: list[str] = []
    for mark in marks:
        prefix, found, after = rest.partition(mark)
        before.append(prefix if found else "")
        rest = after if found else rest
    return before


def _position(end: int, passages: Sequence[_Passage], last: int) -> int:
    """Return the position in the teacher's text up to which a token that ends at `end` may read.

    Args:
        end: in the student's text.
        passages: shared by both texts, in order.
        last: length of the teacher's text.
    """
    position = 0
    for passage in passages:
        if end < passage.ours:
            return position
        if end <= passage.ours + passage.length:
            return passage.theirs + end - passage.ours
        position = passage.theirs + passage.length
    return last

"""Alignment of two tokenisations of a prompt: the teacher's tokens that each of ours may read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.data.conversations import Turn
from pipeline.data.student_tokens import locate_prompt_tokens
from pipeline.data.templates import TemplateName
from pipeline.data.tokens import LocatedTokens, locate_prompt
from pipeline.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    turns: Sequence[Turn], theirs: LocatedTokens, tokenizer: PreTrainedTokenizerBase
) -> AlignedPrompt:
    """Return a prompt in student tokens, aligned with the teacher's.

    The two may have other tokenizers and templates: positions are compared within the text of each
    turn. A token between two turns reads the end of the earlier one, a token after the last turn
    the end of the prompt.

    Args:
        turns: of the prompt.
        theirs: the teacher's tokens of it.
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
    passages = _shared_passages(turns, ours.text, theirs.text)
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


def _shared_passages(turns: Sequence[Turn], ours: str, theirs: str) -> list[_Passage]:
    """Return where the texts of turns are in both renderings, in order."""
    passages: list[_Passage] = []
    our_start = their_start = 0
    for turn in turns:
        text = turn.text.strip()
        at_ours, at_theirs = ours.find(text, our_start), theirs.find(text, their_start)
        if not text or at_ours < 0 or at_theirs < 0:
            continue
        passages.append(_Passage(at_ours, at_theirs, len(text)))
        our_start, their_start = at_ours + len(text), at_theirs + len(text)
    return passages


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

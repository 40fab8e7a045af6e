"""`choice`: one of a set of labels, or the letter of an option."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.scoring.final_part import final_part
from pipeline.scoring.interface import Score
from pipeline.scoring.mathematics.final_answer import final_answer
from pipeline.scoring.mathematics.notation import plain

_ENDS = " \t.,;:!?\"'`*_“”‘’«»„()[]{}<>"
_LEAD_IN = re.compile(
    r"^(?:(?:so|thus|therefore|hence|i think|i believe)\b[\s,]*)?(?:that\s+)?"
    r"(?:the\s+|my\s+)?(?:(?:final|correct|right|best|predicted)\s+)?(?:answer|option|choice|label|intent|class|category)\b"
    r"(?:\s+(?:is|should be|would"
    r" be|are)\b\s*:?|\s*[:=])[\s*\"'`]*(?:option\s+|choice\s+|answer\s+)?",
    re.IGNORECASE,
)
_OPTION = re.compile(
    r"^(?:option|choice|answer)?\s*[\s*(\[{\"'`]*([A-Za-z])[\s*)\]}\"'`]*[.:,;]?[\s*]*$",
    re.IGNORECASE,
)
_OPTION_FIRST = re.compile(
    r"^(?:\*\*)?(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])\)|([A-Z])[.:])(?:\*\*)?\s+(\S.*)$",
    re.DOTALL,
)
_NAMED = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+(?i:is|should be|would"
    r" be)\b\s*:?|\s*[:=])?[\s*\"'`]*(?i:option\s+|choice\s+)?"
    r"(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?![\w'’]|\s+[a-z])|([a-z])(?=[\s*]*[.,;:)]|[\s*]*$))(?!\s+(?:or|and)\s+[(\[]?[A-Z]\b)"
)
"""A letter that is named; `A` and `I` before a word are no letters of options."""
_CONCLUDED = re.compile(r"\b(?:is|be)\s+[*(\[\"'`]*([A-Z])[*)\]\"'`]*\s*[.!]?\s*$")


@dataclass(frozen=True)
class ChoiceScore(Score):
    """One of a few labels."""

    name = "choice"
    definition = (
        "1 where the answer names the reference's label, or the letter of its option; case,"
        " punctuation around it, `_` between words, a lead-in such as “The answer is” and thoughts"
        " before it do not count; of “(C) Paris” the letter decides"
    )

    def can_score(self, reference: str) -> bool:
        """Whether anything is left of it without its punctuation."""
        return bool(normal_label(final_part(reference)))

    def score(self, answer: str, reference: str) -> float:
        """Whether the answer names the same."""
        wanted, found = _chosen(reference), _chosen(answer)
        letter, rest = option_letter(wanted)
        labels = {normal_label(wanted)} | ({normal_label(rest)} if rest else set())
        return float(
            normal_label(found) in labels or (letter is not None and _letter_of(found) == letter)
        )


def _chosen(text: str) -> str:
    """What follows the thought, and of that what is in a box."""
    text = final_part(text)
    return plain(final_answer(text) or text) if "\\boxed" in text else text


def option_letter(text: str) -> tuple[str | None, str]:
    """The letter of a text that is one, or begins with one as options do (`C.`, `(C)`), with the
    words after it."""
    text = _folded(text)
    if alone := _OPTION.match(text):
        return alone[1].upper(), ""
    if first := _OPTION_FIRST.match(text):
        return next(letter for letter in first.groups()[:4] if letter).upper(), first[5]
    return None, ""


def normal_label(text: str) -> str:
    """A label without case, lead-in and the punctuation around it."""
    plain = _folded(text)
    bare = _LEAD_IN.sub("", plain.strip(_ENDS)).strip(_ENDS) or plain.strip(_ENDS) or plain
    return _folded(re.sub(r"(?<=[^\W\d_])[_-]+(?=[^\W\d_])", " ", bare)).casefold()


def _letter_of(answer: str) -> str | None:
    """The letter that an answer names, in any of the usual ways."""
    letter, _ = option_letter(_LEAD_IN.sub("", _folded(answer)))
    if letter is not None:
        return letter
    named = _CONCLUDED.search(answer) or next(reversed(list(_NAMED.finditer(answer))), None)
    return next(each for each in named.groups() if each).upper() if named else None


def _folded(text: str) -> str:
    return " ".join(text.split())

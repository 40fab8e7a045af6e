"""The score `choice`: a label, or the letter of an option."""

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
"""A letter that an answer names; `A` and `I` before a word are words, not options."""
_CONCLUDED = re.compile(r"\b(?:is|be)\s+[*(\[\"'`]*([A-Z])[*)\]\"'`]*\s*[.!]?\s*$")


@dataclass(frozen=True)
class ChoiceScore(Score):
    """Whether the answer is the reference's label or option."""

    name = "choice"
    definition = (
        "1 if the answer is the reference's label, or the letter of its option, ignoring case,"
        " surrounding punctuation, `_` between words, a lead-in such as “The answer is” and"
        " reasoning before it; in “(C) Paris” the letter decides"
    )

    def can_score(self, reference: str) -> bool:
        """Return whether a reference has more than punctuation."""
        return bool(normal_label(final_part(reference)))

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the answer names the reference's label or option, else 0."""
        expected, chosen = _chosen(reference), _chosen(answer)
        letter, label = option_letter(expected)
        labels = {normal_label(expected)} | ({normal_label(label)} if label else set())
        return float(
            normal_label(chosen) in labels or (letter is not None and _letter_of(chosen) == letter)
        )


def _chosen(text: str) -> str:
    """Return the text after the reasoning, or the content of its box."""
    text = final_part(text)
    return plain(final_answer(text) or text) if "\\boxed" in text else text


def option_letter(text: str) -> tuple[str | None, str]:
    """Return the letter of an option such as `C`, `(C)` or `C. Paris`, and the text after it."""
    text = _folded(text)
    if match := _OPTION.match(text):
        return match[1].upper(), ""
    if match := _OPTION_FIRST.match(text):
        return next(letter for letter in match.groups()[:4] if letter).upper(), match[5]
    return None, ""


def normal_label(text: str) -> str:
    """Return a label in lower case, without lead-in and surrounding punctuation."""
    text = _folded(text)
    label = _LEAD_IN.sub("", text.strip(_ENDS)).strip(_ENDS) or text.strip(_ENDS) or text
    return _folded(re.sub(r"(?<=[^\W\d_])[_-]+(?=[^\W\d_])", " ", label)).casefold()


def _letter_of(answer: str) -> str | None:
    """Return the letter that an answer chooses, or None."""
    letter, _ = option_letter(_LEAD_IN.sub("", _folded(answer)))
    if letter is not None:
        return letter
    match = _CONCLUDED.search(answer) or next(reversed(list(_NAMED.finditer(answer))), None)
    return next(group for group in match.groups() if group).upper() if match else None


def _folded(text: str) -> str:
    return " ".join(text.split())

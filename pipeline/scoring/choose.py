"""The choice of a score, by name or from a data set's references."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.scoring.choice import ChoiceScore, normal_label, option_letter
from pipeline.scoring.custom_score import load_custom_score
from pipeline.scoring.final_part import final_part
from pipeline.scoring.interface import Score
from pipeline.scoring.math_score import MathScore
from pipeline.scoring.mathematics.final_answer import has_marked_answer
from pipeline.scoring.mathematics.notation import plain
from pipeline.scoring.mathematics.results import is_result
from pipeline.scoring.structures import CallScore, JsonScore, is_json_container
from pipeline.scoring.text import ChrfScore, ContainsScore, ExactScore, RougeScore

SCORE_NAMES = ("auto", "exact", "math", "choice", "json", "call", "contains", "rouge", "chrf")
_MOST = 0.9
"""The share of references that must fit a score."""
_MAX_EXACT = 20
"""Longest reference, in words, that is compared exactly."""
_MAX_RESULT = 100
"""Longest reference, in characters, that is a result as a whole."""
_MAX_LABEL = 8
"""Longest label, in words."""


@dataclass(frozen=True)
class ChosenScore:
    """A score, and the reason for its choice."""

    score: Score
    reason: str


def require_score(name: str) -> None:
    """Refuse an unknown name of a score, without loading anything.

    Raises:
        InputError: there is no such score.
    """
    if name in SCORE_NAMES or all(name.partition(":")):
        return
    near = difflib.get_close_matches(name, SCORE_NAMES, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(
        f"--score {name}: no such score{hint}; choose {', '.join(SCORE_NAMES)} or module:function"
    )


def choose_score(name: str, references: Sequence[str]) -> ChosenScore:
    """Return the named score; `auto` chooses one that fits the references.

    Raises:
        InputError: there is no such score.
    """
    require_score(name)
    if name == "auto":
        return _fitting(references)
    if ":" in name:
        return ChosenScore(load_custom_score(name), "named")
    scores: dict[str, Score] = {
        score.name: score
        for score in (
            ExactScore(),
            MathScore(),
            ChoiceScore(),
            JsonScore(),
            CallScore(),
            ContainsScore(),
            RougeScore(),
            ChrfScore(),
        )
    }
    return ChosenScore(scores[name], "named")


def _fitting(references: Sequence[str]) -> ChosenScore:
    texts = [text for reference in references if (text := final_part(reference).strip())]
    if not texts:
        return ChosenScore(ExactScore(), "no row has a reference")

    def most(fits: Sequence[bool]) -> bool:
        return sum(fits) >= _MOST * len(texts)

    if most([CallScore().can_score(text) for text in texts]):
        return ChosenScore(CallScore(), "the references are calls")
    if most([is_json_container(text) for text in texts]):
        return ChosenScore(JsonScore(), "the references are JSON")
    if most([has_marked_answer(text) for text in texts]):
        return ChosenScore(MathScore(), "the references end in a box or ####")
    if most([option_letter(text)[0] is not None for text in texts]):
        return ChosenScore(ChoiceScore(), "the references are letters of options")
    if most([len(text) <= _MAX_RESULT and is_result(plain(text)) for text in texts]):
        return ChosenScore(MathScore(), "the references are numbers or expressions")
    words = [len(text.split()) for text in texts]
    labels = {normal_label(text) for text in texts}
    if most([count <= _MAX_LABEL for count in words]) and 2 * len(labels) <= len(texts):
        return ChosenScore(ChoiceScore(), f"the references are {len(labels)} labels")
    if most([count <= _MAX_EXACT for count in words]):
        return ChosenScore(ExactScore(), "the references are short")
    return ChosenScore(RougeScore(), "the references are free text")

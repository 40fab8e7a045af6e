"""Which score a data set's references ask for."""

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
from pipeline.scoring.structures import CallScore, JsonScore, json_value
from pipeline.scoring.text import ChrfScore, ContainsScore, ExactScore, RougeScore

SCORE_NAMES = ("auto", "exact", "math", "choice", "json", "call", "contains", "rouge", "chrf")
_MOST = 0.9
"""Share of the references that have to be of a kind."""
_SHORT = 20
"""Words of an answer that is compared as a whole."""
_RESULT = 100
"""Characters of a result that is the whole reference."""
_LABEL = 8
"""Words of a label."""


@dataclass(frozen=True)
class ChosenScore:
    """A score, and why it is the one."""

    score: Score
    reason: str


def require_score(name: str) -> None:
    """Look at a score's name, and at nothing else.

    Raises:
        InputError: there is no such score.
    """
    if name in SCORE_NAMES or all(name.partition(":")):
        return
    near = difflib.get_close_matches(name, SCORE_NAMES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"--score {name}: there are {', '.join(SCORE_NAMES)}, and module:function{hint}"
    )


def choose_score(name: str, references: Sequence[str]) -> ChosenScore:
    """The score of a name; `auto` looks at the references.

    Raises:
        InputError: there is no such score.
    """
    require_score(name)
    if name == "auto":
        return _fitting(references)
    if ":" in name:
        return ChosenScore(load_custom_score(name), "named")
    scores: dict[str, Score] = {
        each.name: each
        for each in (
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
    known = [part for reference in references if (part := final_part(reference).strip())]
    if not known:
        return ChosenScore(ExactScore(), "no row has a reference")

    def most(fits: Sequence[bool]) -> bool:
        return sum(fits) >= _MOST * len(known)

    if most([CallScore().can_score(each) for each in known]):
        return ChosenScore(CallScore(), "the references are calls")
    if most([_is_json_structure(each) for each in known]):
        return ChosenScore(JsonScore(), "the references are JSON")
    if most([has_marked_answer(each) for each in known]):
        return ChosenScore(MathScore(), "the references end in a box or ####")
    if most([option_letter(each)[0] is not None for each in known]):
        return ChosenScore(ChoiceScore(), "the references are letters of options")
    if most([len(each) <= _RESULT and is_result(plain(each)) for each in known]):
        return ChosenScore(MathScore(), "the references are numbers or expressions")
    words = [len(each.split()) for each in known]
    labels = {normal_label(each) for each in known}
    if most([count <= _LABEL for count in words]) and 2 * len(labels) <= len(known):
        return ChosenScore(ChoiceScore(), f"the references are {len(labels)} labels")
    if most([count <= _SHORT for count in words]):
        return ChosenScore(ExactScore(), "the references are short")
    return ChosenScore(RougeScore(), "the references are free text")


def _is_json_structure(text: str) -> bool:
    try:
        return isinstance(json_value(text), (dict, list))
    except ValueError:
        return False

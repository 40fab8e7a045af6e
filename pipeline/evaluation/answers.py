"""Form and repetition of answers; also exports what external scripts compare answers with."""

from __future__ import annotations

from pipeline.scoring.mathematics.final_answer import final_answer
from pipeline.scoring.mathematics.same_answer import same_answer

__all__ = ["final_answer", "has_form", "repetition", "same_answer"]

_FORM = (
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
)


def has_form(text: str) -> bool:
    """Return whether a text has one closed thought section before one solution section."""
    places = [text.find(marker) for marker in _FORM]
    return all(text.count(marker) == 1 for marker in _FORM) and places == sorted(places)


def repetition(text: str) -> float:
    """Return the share of repeated 4-grams of words (Welleck et al., arXiv 1908.04319), 0 to 1."""
    words = text.split()
    runs = [tuple(words[start : start + 4]) for start in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0

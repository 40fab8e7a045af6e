"""Scores that compare plain text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.scoring.final_part import final_part
from pipeline.scoring.interface import Score


@dataclass(frozen=True)
class ExactScore(Score):
    """Equality of the whole text."""

    name = "exact"
    definition = (
        "1 if the whole answer equals the reference, ignoring reasoning before it and white space"
        " differences"
    )

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the texts are equal, else 0."""
        return float(_words(answer) == _words(reference))


@dataclass(frozen=True)
class ContainsScore(Score):
    """Occurrence of the reference in the answer."""

    name = "contains"
    definition = (
        "1 if the answer contains the reference as whole words, ignoring case and differences in"
        " white space"
    )

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the answer contains the reference, else 0."""
        expected = re.escape(" ".join(_words(reference)).casefold())
        return float(
            re.search(rf"(?<!\w){expected}(?!\w)", " ".join(_words(answer)).casefold()) is not None
        )


@dataclass(frozen=True)
class RougeScore(Score):
    """ROUGE-L, by rouge-score."""

    name = "rouge"
    definition = "ROUGE-L's F1 of the words (rouge-score, no stemming), 0 to 1, averaged over rows"
    graded = True

    def score(self, answer: str, reference: str) -> float:
        """Return the F1 of the longest common subsequence of words."""
        return float(
            self._scorer.score(final_part(reference), final_part(answer))["rougeL"].fmeasure
        )

    def can_score(self, reference: str) -> bool:
        """Return whether the reference has words for rouge-score, which only knows ASCII."""
        return re.search(r"[a-zA-Z0-9]", final_part(reference)) is not None

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"])


@dataclass(frozen=True)
class ChrfScore(Score):
    """ChrF, by sacreBLEU."""

    name = "chrf"
    definition = (
        "chrF (sacreBLEU's defaults: character 6-grams, beta 2), 0 to 1, averaged over rows"
    )
    graded = True

    def score(self, answer: str, reference: str) -> float:
        """Return the F-score of common character n-grams."""
        return (
            float(self._metric.sentence_score(final_part(answer), [final_part(reference)]).score)
            / 100
        )

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()


def _words(text: str) -> list[str]:
    """Return the words after the reasoning."""
    return unicodedata.normalize("NFC", final_part(text)).split()

"""Scores of text as text."""

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
    """The whole answer."""

    name = "exact"
    definition = (
        "1 where the whole answer is the reference, letter by letter, thoughts before it aside and"
        " white space folded"
    )

    def score(self, answer: str, reference: str) -> float:
        """Whether they are the same."""
        return float(_words(answer) == _words(reference))


@dataclass(frozen=True)
class ContainsScore(Score):
    """The reference within the answer."""

    name = "contains"
    definition = (
        "1 where the reference stands somewhere in the answer as whole words, case and white space"
        " aside"
    )

    def score(self, answer: str, reference: str) -> float:
        """Whether it does."""
        wanted = re.escape(" ".join(_words(reference)).casefold())
        return float(
            re.search(rf"(?<!\w){wanted}(?!\w)", " ".join(_words(answer)).casefold()) is not None
        )


@dataclass(frozen=True)
class RougeScore(Score):
    """ROUGE-L, by rouge-score."""

    name = "rouge"
    definition = "ROUGE-L's F1 of the words (rouge-score, no stemming), 0 to 1, averaged over rows"
    graded = True

    def score(self, answer: str, reference: str) -> float:
        """The longest common subsequence of words, as F1."""
        return float(
            self._scorer.score(final_part(reference), final_part(answer))["rougeL"].fmeasure
        )

    def can_score(self, reference: str) -> bool:
        """Whether it has words that rouge-score knows: letters and digits of ASCII."""
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
        """The F-score of common character n-grams."""
        return (
            float(self._metric.sentence_score(final_part(answer), [final_part(reference)]).score)
            / 100
        )

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()


def _words(text: str) -> list[str]:
    """The words of what follows the thought."""
    return unicodedata.normalize("NFC", final_part(text)).split()

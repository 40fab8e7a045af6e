"""Scores of text as text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.scoring.interface import Score


@dataclass(frozen=True)
class ExactScore(Score):
    """The whole answer."""

    name = "exact"
    definition = "1 where the whole answer is the reference, letter by letter, white space folded"

    def score(self, answer: str, reference: str) -> float:
        """Whether they are the same."""
        return float(answer.split() == reference.split())


@dataclass(frozen=True)
class ContainsScore(Score):
    """The reference within the answer."""

    name = "contains"
    definition = "1 where the reference stands somewhere in the answer as whole words, case and white space aside"

    def score(self, answer: str, reference: str) -> float:
        """Whether it does."""
        wanted = re.escape(" ".join(reference.casefold().split()))
        return float(re.search(rf"(?<!\w){wanted}(?!\w)", " ".join(answer.casefold().split())) is not None)


@dataclass(frozen=True)
class RougeScore(Score):
    """ROUGE-L, by rouge-score."""

    name = "rouge"
    definition = "ROUGE-L's F1 of the words (rouge-score, no stemming), 0 to 1, averaged over rows"
    graded = True

    def score(self, answer: str, reference: str) -> float:
        """The longest common subsequence of words, as F1."""
        return float(self._scorer.score(reference, answer)["rougeL"].fmeasure)

    def can_score(self, reference: str) -> bool:
        """Whether it has words that rouge-score knows: letters and digits of ASCII."""
        return re.search(r"[a-zA-Z0-9]", reference) is not None

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer(["rougeL"])


@dataclass(frozen=True)
class ChrfScore(Score):
    """ChrF, by sacreBLEU."""

    name = "chrf"
    definition = "chrF (sacreBLEU's defaults: character 6-grams, beta 2), 0 to 1, averaged over rows"
    graded = True

    def score(self, answer: str, reference: str) -> float:
        """The F-score of common character n-grams."""
        return float(self._metric.sentence_score(answer, [reference]).score) / 100

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF()


@dataclass(frozen=True)
class ChoiceScore(Score):
    """One of some labels.

    Attributes:
        labels: all labels that the references name, normalised.
    """

    name = "choice"
    definition = (
        "1 where the answer is the reference's label, or names it and no other label of the references; case, punctuation, "
        "underscores and white space aside"
    )
    labels: frozenset[str] = field(default_factory=frozenset)

    def can_score(self, reference: str) -> bool:
        """Whether anything is left of it without punctuation."""
        return bool(label_of(reference))

    def score(self, answer: str, reference: str) -> float:
        """Whether the label is the same."""
        wanted, found = label_of(reference), label_of(answer)
        if found == wanted:
            return 1.0
        if len(wanted) == 1:
            return float(_letters(answer) == {wanted})
        return float(self._named(found) == {wanted})

    def _named(self, text: str) -> set[str]:
        """The labels in a text, none within a longer one."""
        found, rest = set(), text
        for label in sorted(self.labels, key=lambda label: (-len(label), label)):
            pattern = rf"(?<!\w){re.escape(label)}(?!\w)"
            if len(label) > 1 and re.search(pattern, rest):
                found.add(label)
                rest = re.sub(pattern, "\0", rest)
        return found


def label_of(text: str) -> str:
    """A label as it is compared: lower case, words of letters and digits."""
    return " ".join(re.findall(r"[^\W_]+(?:['.,+#-][^\W_]+)*[+#]*", text.casefold()))


def _letters(text: str) -> set[str]:
    """The option letters that an answer chooses: the ones that it states, else those in brackets or with a full stop."""
    for pattern in (
        r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*[(*\[]*([A-Za-z0-9])\b(?![\w'])",
        r"\\boxed\{\s*(?:\\text\{)?\(?([A-Za-z0-9])\)?",
        r"[(\[]([A-Za-z0-9])[)\]]",
        r"(?m)^\s*[*]*([A-Z0-9])[).:*]",
        r"^\s*([A-Z0-9])(?:\s|$)",
    ):
        if found := re.findall(pattern, text):
            return {letter.casefold() for letter in found}
    return set()

"""What a score is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pipeline.scoring.final_part import final_part


@dataclass(frozen=True)
class Score(ABC):
    """Compares answers with references.

    Attributes:
        name: by which it is chosen and reported.
        definition: one sentence for the report.
        graded: whether an answer may be partly right; else it is right (1) or wrong (0).
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    graded: ClassVar[bool] = False

    def can_score(self, reference: str) -> bool:
        """Whether anything can be compared with a reference."""
        return bool(final_part(reference))

    @abstractmethod
    def score(self, answer: str, reference: str) -> float:
        """How right an answer is, 0 to 1."""

    def fields(self, answer: str, reference: str) -> float | None:
        """The share of a structure's fields that are right, 0 to 1; None for a score of no
        structure."""
        return None

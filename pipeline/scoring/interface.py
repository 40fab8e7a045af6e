"""The interface of all scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pipeline.scoring.final_part import final_part


@dataclass(frozen=True)
class Score(ABC):
    """A comparison of answers with references.

    Attributes:
        name: for `--score` and in the report.
        definition: one sentence for the report.
        graded: whether values between 0 (wrong) and 1 (right) are possible.
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    graded: ClassVar[bool] = False

    def can_score(self, reference: str) -> bool:
        """Return whether answers can be compared with a reference."""
        return bool(final_part(reference))

    @abstractmethod
    def score(self, answer: str, reference: str) -> float:
        """Return the score of an answer, 0 to 1."""

    def fields(self, answer: str, reference: str) -> float | None:
        """Return the share of correct fields, 0 to 1; None if the score compares no structure."""
        return None

"""The score of final results."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.scoring.interface import Score
from pipeline.scoring.mathematics.final_answer import final_answer
from pipeline.scoring.mathematics.same_answer import same_answer


@dataclass(frozen=True)
class MathScore(Score):
    """Final results, compared as mathematics."""

    name = "math"
    definition = (
        "1 if the final result (the last box or ####, else the stated answer, else the last number)"
        " is the same number, expression, list or text as the reference's, by Math-Verify, ignoring"
        " notation and reasoning before it"
    )

    def can_score(self, reference: str) -> bool:
        """Return whether a reference has a final result."""
        return final_answer(reference) is not None

    def score(self, answer: str, reference: str) -> float:
        """Return 1 if the final results are equal, else 0.

        Raises:
            RunError: Math-Verify cannot be started.
        """
        return float(same_answer(final_answer(answer), final_answer(reference)))

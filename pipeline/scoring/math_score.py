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
        "1 where the final result (the last box or ####, else what is stated to be the answer, else"
        " the last number) is the same number, expression, list or words as the reference's, by"
        " Math-Verify; notation and thoughts before it do not count"
    )

    def can_score(self, reference: str) -> bool:
        """Whether a reference has a final result."""
        return final_answer(reference) is not None

    def score(self, answer: str, reference: str) -> float:
        """Whether the final results are the same.

        Raises:
            RunError: Math-Verify cannot be started.
        """
        return float(same_answer(final_answer(answer), final_answer(reference)))

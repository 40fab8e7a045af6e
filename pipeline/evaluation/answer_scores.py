"""Score the answers of all runs of an evaluation by the same score."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.losses import mean_interval, share_interval
from pipeline.evaluation.results import AnswerScore, ScoreDescription
from pipeline.scoring.choose import choose_score


class AnswerScores:
    """Compares answers with the references of their prompts."""

    def __init__(
        self, name: str, references: Sequence[str], all_references: Sequence[str] = ()
    ) -> None:
        """Choose the score.

        Args:
            name: of the score, as for `choose_score`.
            references: of each prompt.
            all_references: of all rows of the data set, to choose the score from; those of the
                prompts if empty.

        Raises:
            InputError: no such score, or a user-defined one fails on the references themselves,
                which is checked before any answer is generated.
        """
        self._choice = choose_score(name, all_references or references)
        self._score = self._choice.score
        self._references = list(references)
        self._can_score = [self._score.can_score(reference) for reference in references]
        if ":" in name:
            self.score_answers(self._references)

    @property
    def name(self) -> str:
        """Name of the score."""
        return self._score.name

    @property
    def graded(self) -> bool:
        """Whether answers can be partly right."""
        return self._score.graded

    @property
    def description(self) -> ScoreDescription:
        """The score, and the number of rows that it can score."""
        return ScoreDescription(
            name=self.name,
            why=self._choice.reason,
            definition=self._score.definition,
            graded=self.graded,
            scored=sum(self._can_score),
            not_scored=len(self._can_score) - sum(self._can_score),
        )

    def score_answers(self, answers: Sequence[str]) -> list[float | None]:
        """Return the score of each answer; None if its reference cannot be scored."""
        rows = zip(answers, self._references, self._can_score, strict=True)
        return [
            self._score.score(answer, reference) if can_score else None
            for answer, reference, can_score in rows
        ]

    def mean(self, answers: Sequence[str], scores: Sequence[float | None]) -> AnswerScore | None:
        """Return the mean of `scores`, those of `answers`; None if no row can be scored."""
        values = [score for score in scores if score is not None]
        if not values:
            return None
        rows = zip(answers, self._references, self._can_score, strict=True)
        shares = [
            self._score.fields(answer, reference)
            for answer, reference, can_score in rows
            if can_score
        ]
        fields = [share for share in shares if share is not None]
        return AnswerScore(
            value=sum(values) / len(values),
            interval=(
                mean_interval(values)
                if self.graded
                else share_interval(round(sum(values)), len(values))
            ),
            fields=sum(fields) / len(fields) if fields else None,
        )

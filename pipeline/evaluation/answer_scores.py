"""The score of an evaluation: one for all students, chosen from the references of its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pipeline.evaluation.losses import mean_interval, share_interval
from pipeline.scoring.choose import choose_score


class AnswerScores:
    """Compares the answers to some prompts with the data set's own."""

    def __init__(self, name: str, references: Sequence[str], known: Sequence[str] = ()) -> None:
        """Choose the score.

        Args:
            name: of the score, as `choose_score` takes it.
            references: the data set's answer to each prompt.
            known: the answers of all its rows, from which the score is chosen; none for those of
                the prompts alone.

        Raises:
            InputError: there is no such score, or it fails on the references themselves: found
                before anything is written.
        """
        self.choice = choose_score(name, known or references)
        self._references = list(references)
        if ":" in name:
            self.of_rows(self._references)

    @property
    def name(self) -> str:
        """The score's name."""
        return self.choice.score.name

    @cached_property
    def _usable(self) -> list[bool]:
        return [self.choice.score.can_score(reference) for reference in self._references]

    def described(self) -> dict[str, Any]:
        """What the results say of the score."""
        return {
            "name": self.name,
            "why": self.choice.reason,
            "definition": self.choice.score.definition,
            "graded": self.choice.score.graded,
            "scored": sum(self._usable),
            "not_scored": len(self._usable) - sum(self._usable),
        }

    def of_rows(self, answers: Sequence[str]) -> list[float | None]:
        """The score of each answer; None where its reference cannot be scored."""
        rows = zip(answers, self._references, self._usable, strict=True)
        return [
            self.choice.score.score(answer, reference) if usable else None
            for answer, reference, usable in rows
        ]

    def figures(self, answers: Sequence[str], values: Sequence[float | None]) -> dict[str, Any]:
        """The mean over the rows that can be scored, with its interval; nothing where there are
        none.

        A score of right and wrong is also given as `exact_match`.
        """
        known = [value for value in values if value is not None]
        if not known:
            return {}
        mean = sum(known) / len(known)
        interval = (
            mean_interval(known)
            if self.choice.score.graded
            else share_interval(round(sum(known)), len(known))
        )
        figures: dict[str, Any] = {"score": {"value": mean, "interval": interval}}
        fields = [
            share
            for answer, reference, usable in zip(
                answers, self._references, self._usable, strict=True
            )
            if usable and (share := self.choice.score.fields(answer, reference)) is not None
        ]
        if fields:
            figures["score"]["fields"] = sum(fields) / len(fields)
        if not self.choice.score.graded:
            figures |= {"exact_match": mean, "exact_match_interval": interval}
        return figures

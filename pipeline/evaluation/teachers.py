"""The teachers that the students of an evaluation write with, one in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.subjects import Subject
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher


def name_of_teacher(settings: EvaluateSettings, subject: Subject) -> str:
    """Where a subject's teacher is: as the user says, or as it was when it was trained."""
    weights = str(subject.cache.identity["teacher_weights"])
    if settings.teacher is None:
        return str(subject.record["provenance"]["teacher"])
    return f"{weights}:{settings.teacher}" if weights.startswith("random:") else settings.teacher


class KeptTeacher:
    """Keeps the teacher that was asked for last, with the layers that all its students read."""

    def __init__(
        self, settings: EvaluateSettings, subjects: Sequence[Subject], device: torch.device
    ) -> None:
        """Load nothing yet."""
        self._settings, self._device = settings, device
        self._layers: dict[str, set[int]] = {}
        for subject in subjects:
            self._layers.setdefault(self._weights_of(subject), set()).update(
                subject.settings.layers_read
            )
        self._kept: tuple[str, Teacher] | None = None

    def of(self, subject: Subject) -> Teacher:
        """A subject's teacher.

        Raises:
            InputError: it is not there, or its weights are others.
        """
        weights = self._weights_of(subject)
        if self._kept is None or self._kept[0] != weights:
            self.let_go()
            layers, identity = sorted(self._layers[weights]), subject.cache.identity
            self._kept = (
                weights,
                load_verified_teacher(
                    name_of_teacher(self._settings, subject), layers, identity, self._device
                ),
            )
        return self._kept[1]

    def let_go(self) -> None:
        """Make room for another model."""
        self._kept = None
        gc.collect()

    def _weights_of(self, subject: Subject) -> str:
        return str(subject.cache.identity["teacher_weights"])

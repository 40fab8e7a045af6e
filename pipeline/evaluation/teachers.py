"""Teachers for generation in an evaluation, one in memory at a time."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch

from pipeline.evaluation.open_runs import OpenRun
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher


def teacher_location(settings: EvaluateSettings, run: OpenRun) -> str:
    """Return the location of a run's teacher: from the settings, or as recorded."""
    if settings.teacher is None:
        return str(run.record.provenance["teacher"])
    return f"{_weights(run)}:{settings.teacher}" if run.has_random_teacher else settings.teacher


class KeptTeacher:
    """Keeps the last teacher loaded, with the layers that all its students read."""

    def __init__(
        self, settings: EvaluateSettings, runs: Sequence[OpenRun], device: torch.device
    ) -> None:
        """Collect the layers to load for each teacher; load none yet."""
        self._settings, self._device = settings, device
        self._layers: dict[str, set[int]] = {}
        for run in runs:
            self._layers.setdefault(_weights(run), set()).update(run.settings.layers_read)
        self._kept: tuple[str, Teacher] | None = None

    def load(self, run: OpenRun) -> Teacher:
        """Return a run's teacher.

        Raises:
            InputError: it is missing, or its weights differ.
        """
        weights = _weights(run)
        if self._kept is None or self._kept[0] != weights:
            self.release()
            teacher = load_verified_teacher(
                teacher_location(self._settings, run),
                sorted(self._layers[weights]),
                run.cache.identity,
                self._device,
            )
            self._kept = (weights, teacher)
        return self._kept[1]

    def release(self) -> None:
        """Free the teacher's memory."""
        self._kept = None
        gc.collect()


def _weights(run: OpenRun) -> str:
    return str(run.cache.identity["teacher_weights"])

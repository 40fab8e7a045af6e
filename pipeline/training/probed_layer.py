"""`train --layers auto`: the cached layer that a linear probe reads best."""

from __future__ import annotations

from dataclasses import replace

from cache import Cache
from pipeline.probe.run import probe_rows
from pipeline.probe.settings import ProbeSettings
from pipeline.processes import process_share
from pipeline.progress import NO_PROGRESS, count_columns, print_line, shown_progress
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of
from pipeline.runs.settings import TrainSettings


def with_probed_layer(settings: TrainSettings, cache: Cache, *, resume: bool) -> TrainSettings:
    """Return the settings with the best layer in place of `--layers auto`.

    Layer 0, the embeddings, is not a candidate; a single candidate needs no probe. The probe does
    not read the run's held-out rows. A resumed run keeps its layer.

    Raises:
        InputError: the rows have no answers, or are too few to be split.
    """
    if settings.layers:
        return settings
    folder = RunFolder(settings.run)
    if resume and folder.exists():
        return replace(settings, layers=folder.settings().layers)
    candidates = tuple(layer for layer in cache.layers if layer) or (0,)
    if len(candidates) == 1:
        return replace(settings, layers=candidates)
    training, _ = rows_of(cache, settings)
    leads = process_share().rank == 0
    with shown_progress(*count_columns()) as shown:
        result = probe_rows(
            cache,
            training,
            ProbeSettings(cache=settings.cache, layers=candidates, seed=settings.seed),
            shown if leads else NO_PROGRESS,
        )
    best = result.layers[0]
    if leads:
        others = ", ".join(f"{score.layer} {score.score:.1%}" for score in result.layers[1:])
        print_line(
            f"layer {best.layer}, by a linear probe on {result.examples} training rows:"
            f" {best.score:.1%} ({result.target})" + (f"; others: {others}" if others else "")
        )
    return replace(settings, layers=(best.layer,))

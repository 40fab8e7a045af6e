"""`train --layers auto`: the cached layer that a linear probe reads best."""

from __future__ import annotations

import random
from dataclasses import replace

from cache import Cache
from pipeline.probe.run import probe_examples
from pipeline.processes import process_share
from pipeline.progress import print_line
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of
from pipeline.runs.settings import TrainSettings

_EXAMPLES = 2000
"""Most training rows that the probe reads; the run's held-out rows are not read."""


def with_probed_layer(settings: TrainSettings, cache: Cache, *, resume: bool) -> TrainSettings:
    """Return the settings with the best layer in place of `--layers auto`.

    A resumed run keeps the layer that it began with.

    Raises:
        InputError: the rows have no answers, or are too few to be split.
    """
    if settings.layers:
        return settings
    folder = RunFolder(settings.run)
    if resume and folder.exists():
        return replace(settings, layers=folder.read_record().settings.layers)
    training, _ = rows_of(cache, settings)
    chosen = sorted(random.Random(settings.seed).sample(training, min(_EXAMPLES, len(training))))
    result = probe_examples(cache, chosen, cache.layers, seed=settings.seed)
    best = result.layers[0]
    if process_share().rank == 0:
        others = ", ".join(f"{score.layer} {score.score:.1%}" for score in result.layers[1:])
        print_line(
            f"layer {best.layer}, by a linear probe on {result.examples} training rows:"
            f" {best.score:.1%} ({result.target})" + (f"; others: {others}" if others else "")
        )
    return replace(settings, layers=(best.layer,))

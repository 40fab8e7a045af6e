"""Train a student from a cache, and its comparison runs at equal steps and tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cache import Cache, open_cache
from cache.storage import LocationLike
from pipeline.data.split import MIN_HELD_OUT
from pipeline.processes import own_share
from pipeline.progress import tell
from pipeline.runs.comparisons import comparison_settings, kind_of
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunRecord
from pipeline.runs.rows import describe_groups, rows_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.one_run import train_one
from pipeline.training.requirements import opened_cache, require_comparison, require_fit


def train(
    settings: TrainSettings,
    *,
    comparisons: Sequence[str] = (),
    random_teacher: LocationLike | None = None,
    resume: bool = False,
    options: str = "",
) -> RunRecord:
    """Train a student, then its comparison runs; return the student's record.

    Where torchrun has started several processes, all call this, and train together.

    Args:
        settings: of the student.
        comparisons: names of the comparison runs (see `pipeline.runs.comparisons`).
        random_teacher: the cache of a teacher of random weights, for the control of that name.
        resume: go on with what was begun.
        options: the command's, kept beside the run as what repeats it.

    Raises:
        CacheError: there is no whole cache there, or it is damaged.
        InputError: the cache lacks the layer, the run exists (or differs from what is resumed), no
            such student.
        RunError: the loss is not finite, or another model's weights are in memory.
    """
    settings.require_comparisons(comparisons)
    settings = replace(settings, accumulate=settings.batches_a_step(own_share().processes))
    with open_cache(settings.cache) as cache:
        require_fit(cache, settings)
        if own_share().rank == 0 and (together := describe_groups(cache)):
            tell(together)
        if comparisons and own_share().rank == 0:
            _tell_if_too_few(cache, settings)
        for name in comparisons:
            require_comparison(
                settings,
                cache,
                name,
                comparison_settings(settings, name, steps=1, random_teacher=random_teacher),
            )
        controls = [name for name in comparisons if kind_of(name) != "baseline"]
        in_all = len(comparisons) + 1
        title = f"student (1 of {in_all})" if comparisons else "student"
        record = train_one(settings, cache, title, controls, resume=resume, options=options)
        for number, name in enumerate(comparisons, start=2):
            own = comparison_settings(
                settings, name, steps=record.result.steps, random_teacher=random_teacher
            )
            with opened_cache(own, settings, cache) as read:
                title = f"{name} ({number} of {in_all})"
                train_one(own, read, title, (), resume=resume or RunFolder(own.run).exists())
            record = record.with_comparisons([name])  # baselines count once they are finished
            if own_share().rank == 0:
                RunFolder(settings.run).write_record(record)
        if comparisons and own_share().rank == 0:
            RunFolder(settings.run).write_options(
                options
            )  # those that a run was begun with may have named none
    return record


def _tell_if_too_few(cache: Cache, settings: TrainSettings) -> None:
    rows = len(cache)
    if rows < 2:  # is refused in a moment
        return
    held_out = len(rows_of(cache, settings)[1])
    if held_out < MIN_HELD_OUT:
        share = math.ceil(100 * MIN_HELD_OUT / rows) / 100
        mend = f"more rows, or --validation {share}" if share <= 0.5 else "more rows"
        tell(
            f"{held_out} of {rows} rows are held out; from fewer than {MIN_HELD_OUT} `evaluate`"
            f" gives no verdict: take {mend}"
        )

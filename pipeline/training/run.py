"""Train a student from a cache, and its comparison runs at equal steps and tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cache import Cache, open_cache
from cache.storage import LocationLike
from pipeline.data.split import MIN_HELD_OUT
from pipeline.processes import process_share
from pipeline.progress import print_line
from pipeline.runs.comparisons import comparison_settings, kind_of
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import RunRecord
from pipeline.runs.rows import describe_groups, rows_of
from pipeline.runs.settings import TrainSettings
from pipeline.training.one_run import train_one
from pipeline.training.probed_layer import with_probed_layer
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

    All processes that torchrun started call this, and train together.

    Args:
        settings: of the student.
        comparisons: names of the comparison runs (see `pipeline.runs.comparisons`).
        random_teacher: cache of a teacher with random weights, for the control of that name.
        resume: continue a run that was begun.
        options: the command's options as YAML, stored in the run's folder.

    Raises:
        CacheError: the cache is missing, incomplete or damaged.
        InputError: the cache lacks a layer, there is no such student, or the run exists, or differs
            from the one to resume.
        RunError: the loss is not finite, or another model's weights are in memory.
    """
    settings.require_comparisons(comparisons)
    settings = replace(settings, accumulate=settings.batches_per_step(process_share().processes))
    with open_cache(settings.cache) as cache:
        settings = with_probed_layer(settings, cache, resume=resume)
        require_fit(cache, settings)
        if process_share().rank == 0 and (groups := describe_groups(cache)):
            print_line(groups)
        if comparisons and process_share().rank == 0:
            _warn_of_few_rows(cache, settings)
        for name in comparisons:
            require_comparison(
                settings,
                cache,
                name,
                comparison_settings(settings, name, steps=1, random_teacher=random_teacher),
            )
        controls = [name for name in comparisons if kind_of(name) != "baseline"]
        runs = len(comparisons) + 1
        title = f"student (1 of {runs})" if comparisons else "student"
        record = train_one(settings, cache, title, controls, resume=resume, options=options)
        for number, name in enumerate(comparisons, start=2):
            changed = comparison_settings(
                settings, name, steps=record.result.steps, random_teacher=random_teacher
            )
            with opened_cache(changed, settings, cache) as comparison_cache:
                title = f"{name} ({number} of {runs})"
                resume_it = resume or RunFolder(changed.run).exists()
                train_one(changed, comparison_cache, title, (), resume=resume_it)
            record = record.with_comparisons([name])  # baselines are listed when finished
            if process_share().rank == 0:
                RunFolder(settings.run).write_record(record)
        if comparisons and process_share().rank == 0:
            # the options that the run was begun with may not name the comparison runs
            RunFolder(settings.run).write_options(options)
    return record


def _warn_of_few_rows(cache: Cache, settings: TrainSettings) -> None:
    rows = len(cache)
    if rows < 2:  # refused later
        return
    held_out = len(rows_of(cache, settings)[1])
    if held_out < MIN_HELD_OUT:
        share = math.ceil(100 * MIN_HELD_OUT / rows) / 100
        advice = f"more rows, or --validation {share}" if share <= 0.5 else "more rows"
        print_line(
            f"{held_out} of {rows} rows are held out; with fewer than {MIN_HELD_OUT} `evaluate`"
            f" gives no verdict: use {advice}"
        )

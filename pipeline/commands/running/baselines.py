"""`evaluate --baselines`: train the baselines that are missing."""

from __future__ import annotations

from dataclasses import replace

from pipeline.evaluation.prompts import require_prompts
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.runs.comparisons import BASELINES
from pipeline.runs.folder import RunFolder
from pipeline.training.requirements import unfit_comparisons
from pipeline.training.run import train


def train_baselines(settings: EvaluateSettings) -> dict[str, str]:
    """Train missing baselines; return those of `all` that this student cannot have, with reasons.

    Raises:
        CacheError: the cache is incomplete or damaged.
        InputError: a named baseline is impossible for this student, or the prompts cannot be read,
            which is checked before hours of training.
    """
    names, every = settings.named_baselines, "all" in settings.baselines
    if not names and not every:
        return {}
    run = RunFolder(settings.run)
    student = replace(
        run.settings(),
        run=settings.run,
        cache=run.require_finished().cache_location if settings.cache is None else settings.cache,
        device=settings.device,
        report_to=(),
    )
    impossible: dict[str, str] = {}
    if every:
        impossible = unfit_comparisons(student, BASELINES)
        names = [name for name in BASELINES if name not in impossible]
    if names:
        require_prompts(settings)
        train(student, comparisons=names, resume=True)
    return impossible

"""Requirements of students and comparison runs on their caches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from cache import Cache, open_cache
from pipeline.data.transcript import transcript_of
from pipeline.data.vocabulary import kept_head
from pipeline.errors import InputError
from pipeline.model import body_shape, student_body
from pipeline.runs.comparisons import RANDOM_TEACHER, comparison_settings, why_impossible
from pipeline.runs.examples import examples_of, positions_needed, students_tokenizer
from pipeline.runs.settings import TrainSettings
from pipeline.shapes import SIZES


def require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Refuse a student that cannot be trained from a cache.

    Raises:
        InputError: the cache lacks a layer, there is no such student, or all its parts are frozen.
    """
    settings.require_states_of(cache.address, cache.manifest)
    settings.require_sense()
    if settings.distill:
        kept_head(cache, "--distill")
    body = student_body(
        settings.student, settings.condition, 1 if settings.own_tokens else int(cache.lengths.max())
    )
    if settings.reads_states:
        settings.conditioning.require_bridge(settings, body_shape(body))
    if settings.own_tokens:
        tokenizer = students_tokenizer(settings, cache)
        if not any(transcript_of(cache, index).answers for index in range(len(cache))):
            raise InputError(
                f"{cache.address}: holds plain text, and --condition prompt and text learn answers"
            )
        if settings.student not in SIZES:  # a new one gets enough positions
            no_states = replace(settings, layers=())
            examples = examples_of(no_states, cache, range(len(cache)), tokenizer)
            longest = positions_needed([examples])
            student_body(settings.student, settings.condition, longest)


def unfit_comparisons(settings: TrainSettings, names: Sequence[str]) -> dict[str, str]:
    """Return the comparison runs that a student cannot have, with reasons."""
    reasons = {}
    with open_cache(settings.cache) as cache:
        for name in names:
            try:
                require_comparison(
                    settings, cache, name, comparison_settings(settings, name, steps=1)
                )
            except InputError as error:
                reasons[name] = why_impossible(settings, name) or str(error).removeprefix(
                    f"{name}: "
                )
    return reasons


def require_comparison(
    settings: TrainSettings, cache: Cache, name: str, changed: TrainSettings
) -> None:
    """Refuse a comparison run that cannot be trained.

    Args:
        settings: of the student.
        cache: of the student.
        name: of the comparison run.
        changed: settings of the comparison run.

    Raises:
        InputError: it cannot be trained, the teacher of its own cache is not random, or that
            cache has other examples than the student's.
    """
    with opened_cache(changed, settings, cache) as own_cache:
        require_fit(own_cache, changed)
        weights = str(own_cache.identity["teacher_weights"])
        if name == RANDOM_TEACHER and not weights.startswith("random:"):
            raise InputError(
                f"--random-teacher {own_cache.address}: its teacher is not random; extract with"
                " --teacher random:SEED:T"
            )
        if own_cache.identity["tokens"] != cache.identity["tokens"]:
            raise InputError(
                f"{own_cache.address}: has other examples than {cache.address}; extract the same"
                " rows"
            )


def opened_cache(
    changed: TrainSettings, settings: TrainSettings, cache: Cache
) -> AbstractContextManager[Cache]:
    """Return the cache of a comparison run: its own, or the student's, which is open."""
    return nullcontext(cache) if changed.cache == settings.cache else open_cache(changed.cache)

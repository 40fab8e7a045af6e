"""What a cache must have for a student, or for one of its comparison runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from cache import Cache, open_cache
from pipeline.data.transcript import transcript_of
from pipeline.data.vocabulary import kept_head
from pipeline.errors import InputError
from pipeline.model import student_body
from pipeline.runs.comparisons import RANDOM_TEACHER, comparison_settings, why_impossible
from pipeline.runs.examples import examples_of, students_tokenizer
from pipeline.runs.settings import TrainSettings
from pipeline.shapes import SIZES


def require_fit(cache: Cache, settings: TrainSettings) -> None:
    """Refuse a student that cannot be trained from a cache.

    Raises:
        InputError: the cache lacks a layer, there is no such student, or its parts are all frozen.
    """
    settings.require_states_of(cache.address, cache.manifest)
    settings.require_sense()
    if settings.distill:
        kept_head(cache, "--distill")
    body = student_body(
        settings.student, settings.condition, 1 if settings.own_tokens else int(cache.lengths.max())
    )
    if settings.reads_states:
        settings.conditioning.require_bridge(settings.bridge, body)
    if settings.own_tokens:
        tokenizer = students_tokenizer(settings, cache)
        if not any(transcript_of(cache, index).answers for index in range(len(cache))):
            raise InputError(
                f"{cache.address}: holds plain text, and --condition prompt and text learn what"
                " answers say"
            )
        if settings.student not in SIZES:  # a new one gets as many positions as are needed
            lengths = examples_of(
                replace(settings, layers=()), cache, range(len(cache)), tokenizer
            ).lengths
            student_body(settings.student, settings.condition, max(lengths))


def unfit_comparisons(settings: TrainSettings, names: Sequence[str]) -> dict[str, str]:
    """Return the comparison runs that a student cannot have, each with the reason."""
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
    settings: TrainSettings, cache: Cache, name: str, own: TrainSettings
) -> None:
    """Refuse a comparison run that cannot be trained.

    Args:
        settings: of the student.
        cache: of the student.
        name: of the comparison run.
        own: its settings.

    Raises:
        InputError: it cannot, or its own cache has another teacher than a random one, or other
            examples than the student's.
    """
    with opened_cache(own, settings, cache) as read:
        require_fit(read, own)
        if name == RANDOM_TEACHER and not str(read.identity["teacher_weights"]).startswith(
            "random:"
        ):
            raise InputError(
                f"--random-teacher {read.address}: its teacher is not random; extract with"
                " --teacher random:SEED:T"
            )
        if read.identity["tokens"] != cache.identity["tokens"]:
            raise InputError(
                f"{read.address}: was made of other examples than {cache.address}; extract the same"
                " rows for it"
            )


def opened_cache(
    own: TrainSettings, settings: TrainSettings, cache: Cache
) -> AbstractContextManager[Cache]:
    """Return a comparison run's cache, which is the student's open one unless it has its own."""
    return nullcontext(cache) if own.cache == settings.cache else open_cache(own.cache)

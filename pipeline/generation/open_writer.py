"""Open the student of a finished run for generation."""

from __future__ import annotations

from pathlib import Path

from cache import Cache, CacheError, open_cache
from cache.storage import StorageLocation
from pipeline.conditions.cached import cached_part_of
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher

_SMALL = 1_000_000_000
"""Most bytes of a cache that is searched for prompts by default."""


def open_writer(
    run: Path,
    *,
    teacher: str | None = None,
    device: str = "auto",
    teacher_device: str | None = None,
    cache: StorageLocation | None = None,
    keep_teacher: bool = True,
) -> StudentWriter:
    """Load a finished run's student, and the teacher if it needs one for every token.

    Args:
        run: its folder.
        teacher: where its teacher is now, if it has moved.
        device: of the student.
        teacher_device: of the teacher, if it is another one.
        cache: of prompts that need no teacher; None: the run's own, where it is small and in a
            folder.
        keep_teacher: keep the teacher in memory between prompts.

    Raises:
        InputError: the run is not finished, or the teacher is not the one it learned from.
    """
    folder, students = RunFolder(run), choose_device(device)
    record = folder.require_finished()
    settings = record.settings
    if not settings.reads_states and (teacher or teacher_device):
        raise InputError(
            f"--teacher, --teacher-device: {run} is a run of --condition {settings.condition},"
            " without a teacher"
        )
    teachers = (
        students if teacher_device is None else choose_device(teacher_device, "--teacher-device")
    )
    name = teacher or record.provenance["teacher"]

    def load() -> Teacher:
        return load_verified_teacher(name, settings.layers_read, record.identity.cache, teachers)

    reads_prompts = settings.conditioning.reads_prompt_states
    if cache is not None and not reads_prompts:
        raise InputError(
            f"--cache: it is searched for prompts, and {run} is a run of --condition"
            f" {settings.condition}; leave it out"
        )
    prompts = _cached_prompts(folder, cache) if reads_prompts else None
    return StudentWriter(
        folder,
        load if settings.reads_states else None,
        students,
        prompts,
        keep_teacher=keep_teacher,
    )


def _cached_prompts(run: RunFolder, named: StorageLocation | None) -> Cache | None:
    """Return the cache of prompts to search, if there is one.

    Without a named cache it is the run's, if that is a small local folder: a search may open many
    shards, and each is read whole.
    """
    location = named or run.require_finished().cache_location
    if named is None and location.is_remote:
        return None
    try:
        cache = open_cache(location)
        run.read_record().require_same_cache(cache)
    except (CacheError, InputError, OSError):
        if named is not None:
            raise
        return None
    holds_prompts = not cached_part_of(cache.identity).is_whole
    if named is not None and not holds_prompts:
        raise InputError(
            f"--cache {named.address}: holds whole examples, and no prompts to search for; leave"
            " it out"
        )
    return cache if holds_prompts and (named is not None or cache.bytes <= _SMALL) else None

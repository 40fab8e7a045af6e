"""A finished run's student, ready to write, with whatever it reads."""

from __future__ import annotations

from pathlib import Path

from cache import Cache, CacheError, open_cache
from cache.storage import Place, place_of
from pipeline.conditions.cached import cached_part_of
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.generation.writer import StudentWriter
from pipeline.runs.folder import RunFolder
from pipeline.runs.record import require_same_cache, trained_from
from pipeline.teacher.model import Teacher
from pipeline.teacher.verified_load import load_verified_teacher

_SMALL = 1_000_000_000
"""Bytes of a cache that is looked into unasked."""


def open_writer(
    run: Path,
    *,
    teacher: str | None = None,
    device: str = "auto",
    teacher_device: str | None = None,
    cache: Place | None = None,
    keep_teacher: bool = True,
) -> StudentWriter:
    """Load a finished run's student, and its teacher if it reads one for every token.

    Args:
        run: its folder.
        teacher: where its teacher is now, if that has moved.
        device: of the student.
        teacher_device: of the teacher, if it is another one.
        cache: of prompts that need no teacher; None: the run's own, where it is small and in a
            folder.
        keep_teacher: whether more than one prompt will be asked.

    Raises:
        InputError: the run is not finished, or the teacher is not the one it learned from.
    """
    folder, students = RunFolder(run), choose_device(device)
    record, settings = folder.require_finished(), folder.settings()
    if not settings.reads_states and (teacher or teacher_device):
        raise InputError(
            f"--teacher, --teacher-device: {run} is a run of --condition {settings.condition},"
            " without a teacher"
        )
    teachers = (
        students if teacher_device is None else choose_device(teacher_device, "--teacher-device")
    )
    name = teacher or record["provenance"]["teacher"]

    def load() -> Teacher:
        return load_verified_teacher(
            name, settings.layers_read, record["identity"]["cache"], teachers
        )

    reads_prompts = settings.conditioning.reads_prompt_states
    if cache is not None and not reads_prompts:
        raise InputError(
            f"--cache: prompts are looked for in it, and {run} is a run of --condition"
            f" {settings.condition}; leave it out"
        )
    prompts = _prompts_at_hand(folder, cache) if reads_prompts else None
    return StudentWriter(
        folder,
        load if settings.reads_states else None,
        students,
        prompts,
        keep_teacher=keep_teacher,
    )


def _prompts_at_hand(run: RunFolder, named: Place | None) -> Cache | None:
    """The cache of prompts that a run learned from: the one that is named, or its own where it is
    in a folder still, and small.

    To look for a prompt can open many shards, and to open one is to read all of it.
    """
    place = named or place_of(trained_from(run))
    if named is None and place.is_remote:
        return None
    try:
        cache = open_cache(place)
        require_same_cache(cache, run.read_record())
    except (CacheError, InputError, OSError):
        if named is not None:
            raise
        return None
    holds_prompts = not cached_part_of(cache.identity).is_whole
    if named is not None and not holds_prompts:
        raise InputError(
            f"--cache {named.address}: holds whole examples, and no prompts to look for; leave"
            " it out"
        )
    return cache if holds_prompts and (named is not None or cache.bytes <= _SMALL) else None

"""What `generate` and `chat` share: options, and loading a student with its teacher."""

from __future__ import annotations

from pathlib import Path

import click
import cloup

from cache import Cache, CacheError, open_cache
from cache.places import Place, place_of
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.generation.writer import StudentWriter
from pipeline.teacher.model import Teacher
from pipeline.teacher.same import load_same_teacher
from pipeline.training.record import require_same_cache, trained_from
from pipeline.training.run_folder import RunFolder

_SMALL = 1_000_000_000
"""Bytes of a cache that is looked into unasked."""


def _texts(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(values):
        raise click.BadParameter("an empty text would end every answer before it begins")
    return values


writer_options = cloup.option_group(
    "The student",
    click.option("--run", type=click.Path(path_type=Path), required=True, help="A finished run."),
    click.option("--system", help="System prompt ('' for none).  [default: the one the student learned with]"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
    click.option("--teacher", help="The run's teacher, where that has moved."),
    click.option("--teacher-device", help="Of the teacher, such as cuda:1.  [default: the student's]"),
    click.option("--cache", metavar="PLACE", help="Cache of prompts that need no teacher.  [default: the run's own, up to 1 GB]"),
)
"""Options that say which student writes, and where."""

sampling_options = cloup.option_group(
    "How tokens are chosen",
    click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer."),
    click.option(
        "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 takes the likeliest token."
    ),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Nucleus."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling."),
    click.option(
        "--stop", multiple=True, metavar="TEXT", callback=_texts, help="End an answer before this text; may be repeated."
    ),
)
"""Options that say how."""


def load_writer(
    run: Path, *, teacher: str | None, device: str, teacher_device: str | None, cache: Place | None, keep_teacher: bool
) -> StudentWriter:
    """Load a finished run's student, and its teacher if it reads one for every token.

    Args:
        run, teacher, device, teacher_device, cache: the options.
        keep_teacher: whether more than one prompt will be asked.

    Raises:
        InputError: the run is not finished, or the teacher is not the one it learned from.
    """
    folder, students = RunFolder(run), choose_device(device)
    record, settings = folder.require_finished(), folder.settings()
    if not settings.reads_states and (teacher or teacher_device):
        raise InputError(f"--teacher, --teacher-device: {run} is a run of --condition {settings.condition}, without a teacher")
    teachers = students if teacher_device is None else choose_device(teacher_device, "--teacher-device")
    name = teacher or record["provenance"]["teacher"]

    def load() -> Teacher:
        return load_same_teacher(name, settings.layers_read, record["identity"]["cache"], teachers)

    if cache is not None and settings.condition != "prompt":
        raise InputError(
            f"--cache: prompts are looked for in it, and {run} is a run of --condition {settings.condition}; leave it out"
        )
    prompts = _prompts_at_hand(folder, cache) if settings.condition == "prompt" else None
    return StudentWriter(folder, load if settings.reads_states else None, students, prompts, keep_teacher=keep_teacher)


def _prompts_at_hand(run: RunFolder, named: Place | None) -> Cache | None:
    """The cache of prompts that a run learned from: the one that is named, or its own where it is in a folder still, and small.

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
    holds_prompts = cache.identity.get("condition") == "prompt"
    if named is not None and not holds_prompts:
        raise InputError(f"--cache {named.address}: holds whole examples, and no prompts to look for; leave it out")
    return cache if holds_prompts and (named is not None or cache.bytes <= _SMALL) else None

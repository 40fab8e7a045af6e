"""The options that `generate` and `chat` share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache, require_teacher, utf8_text
from pipeline.commands.devices import require_device
from pipeline.errors import InputError
from pipeline.runs.folder import RunFolder


def _texts(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    if not all(values):
        raise click.BadParameter("an empty text would end every answer before it begins")
    try:
        return tuple(utf8_text(value, "--stop") for value in values)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


writer_options = cloup.option_group(
    "The student",
    click.option("--run", type=click.Path(path_type=Path), required=True, help="A finished run."),
    click.option(
        "--system", help="System prompt ('' for none).  [default: the one the student learned with]"
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
    click.option("--teacher", help="The run's teacher, where that has moved."),
    click.option(
        "--teacher-device", help="Of the teacher, such as cuda:1.  [default: the student's]"
    ),
    click.option(
        "--cache",
        metavar="PLACE",
        help="Cache of prompts that need no teacher.  [default: the run's own, up to 1 GB]",
    ),
)
"""Options that say which student writes, and where."""

sampling_options = cloup.option_group(
    "How tokens are chosen",
    click.option(
        "--max-new-tokens",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="Longest answer.",
    ),
    click.option(
        "--temperature",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="0 takes the likeliest token.",
    ),
    click.option(
        "--top-p",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        show_default=True,
        help="Nucleus.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling."),
    click.option(
        "--stop",
        multiple=True,
        metavar="TEXT",
        callback=_texts,
        help="End an answer before this text; may be repeated.",
    ),
)
"""Options that say how."""


@dataclass(frozen=True)
class WriterChoice:
    """Which student writes, and where: the options of these names."""

    run: Path
    teacher: str | None
    device: str
    teacher_device: str | None
    cache: StorageLocation | None

    def look_at(self) -> None:
        """Refuse what cannot be right, as far as it shows without transformers and torch.

        Raises:
            CacheError, InputError: says what, where and how to mend it.
        """
        settings = RunFolder(self.run).require_finished().settings
        needs_teacher = settings.conditioning.needs_live_teacher
        require_device(self.device)
        require_device(self.teacher_device, "--teacher-device")
        require_teacher(self.teacher if needs_teacher else None)  # else it may not be needed
        require_cache(self.cache)

    def as_arguments(self) -> dict[str, Any]:
        """As `open_writer` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

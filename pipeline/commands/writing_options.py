"""What `generate` and `chat` share: options, and how the end of an answer is told."""

from __future__ import annotations

from pathlib import Path

import click
import cloup

from pipeline.commands.counted import counted
from pipeline.generation.writer import Written


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


def tell_end(written: Written) -> None:
    """End the line of an answer that has been shown; where it was cut, say so."""
    cut = f"\n[cut after {counted(written.tokens, 'token')}; --max-new-tokens allows more]"
    click.echo("" if written.stopped else cut)

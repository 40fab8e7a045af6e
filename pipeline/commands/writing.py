"""What `generate` and `chat` share: options, and loading a student with its teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.data.conversations import Turn
from pipeline.device import choose_device
from pipeline.generation.writer import StudentWriter
from pipeline.teacher.same import load_same_teacher
from pipeline.training.run_folder import RunFolder


def writer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which student writes, and where."""
    for option in (
        click.option("--system", help="System prompt ('' for none).  [default: the one the student learned with]"),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda"),
        click.option("--teacher", help="The run's teacher, where that has moved."),
        click.option("--run", type=click.Path(path_type=Path), required=True, help="A finished run."),
    ):
        function = option(function)
    return function


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how tokens are chosen."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling."),
        click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Nucleus."),
        click.option(
            "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 takes the likeliest token."
        ),
        click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Longest answer."),
    ):
        function = option(function)
    return function


def load_writer(run: Path, teacher_name: str | None, device_name: str) -> StudentWriter:
    """Load a finished run's student, and its teacher if it reads one.

    Raises:
        InputError: the run is not finished, or the teacher is not the one it learned from.
    """
    folder, device = RunFolder(run), choose_device(device_name)
    record = folder.require_finished()
    teacher, layers = None, folder.settings().layers_read
    if layers:
        name = teacher_name or record["provenance"]["teacher"]
        teacher = load_same_teacher(name, layers, record["identity"]["cache"], device)
    return StudentWriter(folder, teacher, device)


def opening_turns(writer: StudentWriter, system: str | None) -> list[Turn]:
    """The system prompt asked for, or the one that the student learned with."""
    text = writer.record["provenance"]["system_prompt"] if system is None else system
    return [Turn("system", text)] if text else []

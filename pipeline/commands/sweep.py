"""`sweep`: train a grid of runs from one cache."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cloup

from pipeline.commands.checks import require_cache, require_student
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.commands.train_options import train_options, train_settings
from pipeline.errors import InputError
from pipeline.option import EARLIER_NAMES
from pipeline.runs.settings import TrainSettings

_NOT_VARIED = {"cache", "run", "report_to"}


@cloup.command()
@option_section(
    "The runs",
    TrainSettings,
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder of the runs; finished ones are kept.",
    ),
    click.option(
        "--vary",
        multiple=True,
        required=True,
        metavar="'OPTION=V1 V2 …'",
        help=(
            "An option of train and its values; may be repeated. Commas join the words of an option"
            " that may be repeated itself: 'join=cross cross,add'."
        ),
    ),
    fields=["cache"],
)
@train_options
@command
@location_options("cache")
def sweep(*, as_json: bool, vary: tuple[str, ...], runs: Path, **options: Any) -> dict[str, Any]:
    """Train a student for each combination of option values, and compare them on held-out rows.

    The other options are those of train. An interrupted run continues from its last checkpoint.
    Writes sweep.json and sweep.png into the folder of the runs, and prints a table.

    \b
    Examples:
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'cross-layers=0 1 2 4'
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'layers=-1 12' --vary 'seed=0 1'
    """
    grid = _grid(vary)
    settings = train_settings({**options, "run": runs}, varied=grid)
    if settings.report_to:
        raise InputError("--report-to: reports one run, but a sweep has many; omit it")
    require_device(settings.device)
    manifest = require_cache(options["cache"])
    for values in itertools.product(*grid.values()):
        combination = replace(settings, **dict(zip(grid, values, strict=True)))
        require_student(combination.student)
        if manifest is not None:
            combination.require_states_of(options["cache"].address, manifest)
        combination.require_sense()
    from pipeline.commands.running.sweep import sweep_grid

    return sweep_grid(settings, grid, as_json=as_json)


def _grid(vary: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each varied field."""
    grid: dict[str, list[Any]] = {}
    for text in vary:
        name, values = _values(text)
        if name in grid:
            raise InputError(f"--vary {text}: {name} is varied twice; give all values at once")
        grid[name] = values
    return grid


def _values(text: str) -> tuple[str, list[Any]]:
    """Return a field and its values, parsed as its option parses them."""
    name, _, words = text.partition("=")
    context = click.get_current_context()
    fields = {field.name for field in dataclasses.fields(TrainSettings)} - _NOT_VARIED
    parameters = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name in fields
    }
    field = name.strip().lstrip("-").replace("-", "_")
    parameter = parameters.get(EARLIER_NAMES.get(field, field))
    if parameter is None or parameter.name is None:
        raise InputError(f"--vary {text}: {name!r} is not an option of train that can be varied")

    def converted(word: str) -> Any:
        return parameter.type.convert(word, parameter, context)

    values = [
        tuple(map(converted, word.split(","))) if parameter.multiple else converted(word)
        for word in words.split()
    ]
    if not values or len(set(values)) < len(values):
        raise InputError(
            f"--vary {text}: needs different values, such as --vary 'cross-layers=1 2'"
        )
    return parameter.name, values

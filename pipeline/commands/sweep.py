"""`sweep`: a grid of runs from one cache."""

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
from pipeline.commands.shell import command
from pipeline.commands.train_options import cache_option, train_options, train_settings
from pipeline.errors import InputError
from pipeline.runs.settings import TrainSettings


@cloup.command()
@cloup.option_group(
    "The runs",
    cache_option,
    click.option(
        "--runs",
        type=click.Path(path_type=Path),
        required=True,
        help="Their folder; those that are finished stay.",
    ),
    click.option(
        "--vary",
        multiple=True,
        required=True,
        metavar="'OPTION=V1 V2 …'",
        help="An option of train with its values; may be repeated.",
    ),
)
@train_options
@command
@location_options("cache")
def sweep(*, as_json: bool, vary: tuple[str, ...], runs: Path, **options: Any) -> dict[str, Any]:
    """Train a student for each combination of some options' values, and compare them on held-out
    examples.

    All else is as for train. A combination that was interrupted goes on where it stopped. Results:
    a table, sweep.json and sweep.png in the folder of the runs.

    \b
    Examples:
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'cross-layers=0 1 2 4' --vary 'gate=channel scalar none'
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'layers=-1 12 12,-1' --vary 'seed=0 1 2' --max-steps 200
    """
    grid = _grid(vary)
    settings = train_settings({**options, "run": runs}, varied=grid)
    if settings.report_to:
        raise InputError("--report-to: tells of one run, and this is many")
    require_device(settings.device)
    manifest = require_cache(options["cache"])
    for values in itertools.product(*grid.values()):
        each = replace(settings, **dict(zip(grid, values, strict=True)))
        require_student(each.student)
        if manifest is not None:
            each.require_states_of(options["cache"].address, manifest)
        each.require_sense()
    from pipeline.commands.running.sweep import sweep_grid

    return sweep_grid(settings, grid, as_json=as_json)


def _grid(vary: Sequence[str]) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    for text in vary:
        name, values = _values(text)
        if name in grid:
            raise InputError(f"--vary {text}: is named twice; put all its values into one")
        grid[name] = values
    return grid


def _values(text: str) -> tuple[str, list[Any]]:
    """An option's name among the parameters, and its values as the command line would read them."""
    name, _, listed = text.partition("=")
    context = click.get_current_context()
    fields = {field.name for field in dataclasses.fields(TrainSettings)} - {
        "cache",
        "run",
        "report_to",
    }
    known = {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name in fields
    }
    parameter = known.get(name.strip().lstrip("-").replace("-", "_"))
    if parameter is None or parameter.name is None:
        raise InputError(f"--vary {text}: {name!r} is no option of train that can be varied")
    values = [parameter.type.convert(value, parameter, context) for value in listed.split()]
    if not values or len(set(values)) < len(values):
        raise InputError(
            f"--vary {text}: name values that differ, such as --vary 'cross-layers=1 2'"
        )
    if parameter.multiple:
        values = [(value,) for value in values]
    return parameter.name, values

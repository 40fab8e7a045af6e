"""`sweep`: a grid of runs from one cache."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cloup
from rich.console import Console
from rich.table import Table

from cache import open_cache
from cache.files import write_atomically
from pipeline.commands.cache_places import cache_places
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.shell import command
from pipeline.commands.train_options import cache_option, train_options, train_settings
from pipeline.errors import InputError, RunError
from pipeline.processes import leads
from pipeline.report.plots import sweep_points, write_png
from pipeline.training.prepare import require_fit
from pipeline.training.run import train as run_train
from pipeline.training.run_folder import RunFolder
from pipeline.training.settings import TrainSettings

_FIGURES = ("best_val_loss", "best_step", "steps", "tokens", "seconds", "parameters")


@cloup.command()
@cloup.option_group(
    "The runs",
    cache_option,
    click.option("--runs", type=click.Path(path_type=Path), required=True, help="Their folder; those that are finished stay."),
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
@cache_places("cache")
def sweep(*, as_json: bool, vary: tuple[str, ...], runs: Path, **options: Any) -> dict[str, Any]:
    """Train a student for each combination of some options' values, and compare them on held-out examples.

    All else is as for train. A combination that was interrupted goes on where it stopped. Results: a table, sweep.json and
    sweep.png in the folder of the runs.

    \b
    Examples:
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'cross-layers=0 1 2 4' --vary 'gate=channel scalar none'
      llm-modules sweep --cache my-cache --runs my-sweep --vary 'layers=-1 12 12,-1' --vary 'seed=0 1 2' --max-steps 200
    """
    grid = _grid(vary)
    settings = train_settings({**options, "run": runs}, varied=grid)
    if settings.report_to:
        raise InputError("--report-to: tells of one run, and this is many")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    with open_cache(settings.cache) as cache:
        for changes in combinations:
            require_fit(cache, replace(settings, **changes))
    if leads():
        runs.mkdir(parents=True, exist_ok=True)
        write_atomically(runs / "sweep.yaml", options_as_yaml().encode())
    results = [_run(settings, changes) for changes in combinations]
    if not leads():
        raise SystemExit(0)  # what there is to say, the leading process says
    outcome = {"kind": "llm-modules sweep", "varied": [name.replace("_", "-") for name in grid], "runs": results}
    write_atomically(runs / "sweep.json", json.dumps(outcome, indent=1).encode() + b"\n")
    write_png(runs / "sweep.png", sweep_points([run for run in results if "failed" not in run]))
    if not as_json:
        _print(results, runs)
    return outcome


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
    fields = {field.name for field in dataclasses.fields(TrainSettings)} - {"cache", "run", "report_to"}
    known = {parameter.name: parameter for parameter in context.command.params if parameter.name in fields}
    parameter = known.get(name.strip().lstrip("-").replace("-", "_"))
    if parameter is None or parameter.name is None:
        raise InputError(f"--vary {text}: {name!r} is no option of train that can be varied")
    values = [parameter.type.convert(value, parameter, context) for value in listed.split()]
    if not values or len(set(values)) < len(values):
        raise InputError(f"--vary {text}: name values that differ, such as --vary 'cross-layers=1 2'")
    if parameter.multiple:
        values = [(value,) for value in values]
    return parameter.name, values


def _run(settings: TrainSettings, changes: dict[str, Any]) -> dict[str, Any]:
    """Train one combination; what it came to, or why it failed, which keeps no other from being trained."""
    named = {name.replace("_", "-"): _shown(value) for name, value in changes.items()}
    folder = settings.run / re.sub(r"[^\w.,=-]", "_", " ".join(f"{name}={value}" for name, value in named.items()))
    result = {"run": folder.name, "varied": named}
    try:
        record = run_train(replace(settings, run=folder, **changes), resume=RunFolder(folder).exists())
    except RunError as error:
        return result | {"failed": str(error)}
    return result | {"leaks": record["leaks"]} | {name: record["result"][name] for name in _FIGURES}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(results: list[dict[str, Any]], runs: Path) -> None:
    table = Table(title="Held-out loss in nats a token, the best first")
    for heading in (*results[0]["varied"], "val. loss", "at step", "steps", "tokens", "seconds", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    failed = [run for run in results if "failed" in run]
    for run in sorted((run for run in results if run not in failed), key=lambda run: run["best_val_loss"]):
        loss = f"{run['best_val_loss']:.4f}" + (" (LEAKS)" if run["leaks"] else "")
        counts = [f"{round(run[name]):,}" for name in _FIGURES[1:]]
        table.add_row(*run["varied"].values(), loss, *counts)
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for run in failed:
        console.print(f"failed: {run['run']}: {run['failed']}", highlight=False, soft_wrap=True)
    console.print(f"{runs / 'sweep.json'}, {runs / 'sweep.png'}", highlight=False, soft_wrap=True)

"""`sweep`: a grid of runs from one cache."""

from __future__ import annotations

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cache.files import write_atomically
from pipeline.commands.cache_places import cache_places
from pipeline.commands.shell import command
from pipeline.commands.train_options import train_options, train_settings
from pipeline.errors import InputError
from pipeline.processes import leads
from pipeline.report.plots import sweep_points, write_png
from pipeline.training.run import train as run_train
from pipeline.training.run_folder import RunFolder

_SHOWN = ("best_val_loss", "best_step", "steps", "tokens", "seconds", "parameters")


@click.command()
@click.option("--cache", required=True, metavar="PLACE", help="A whole cache, made by extract: a folder, or s3://bucket/prefix.")
@click.option("--runs", type=click.Path(path_type=Path), required=True, help="Folder of the runs; those that are finished stay.")
@click.option(
    "--vary",
    multiple=True,
    required=True,
    metavar="'OPTION=V1 V2 …'",
    help="An option of train with its values; may be repeated.",
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
    grid = dict(_values(text) for text in vary)
    settings = train_settings({**options, "run": runs})
    results = []
    for values in itertools.product(*grid.values()):
        changes = dict(zip(grid, values, strict=True))
        named = {name.replace("_", "-"): _shown(value) for name, value in changes.items()}
        folder = runs / re.sub(r"[^\w.,=-]", "_", " ".join(f"{name}={value}" for name, value in named.items()))
        record = run_train(replace(settings, run=folder, **changes), resume=RunFolder(folder).exists())
        results.append({"run": folder.name, "varied": named, "leaks": record["leaks"]} | {k: record["result"][k] for k in _SHOWN})
    if not leads():
        raise SystemExit(0)  # what there is to say, the leading process says
    outcome = {"kind": "llm-modules sweep", "varied": [name.replace("_", "-") for name in grid], "runs": results}
    write_atomically(runs / "sweep.json", json.dumps(outcome, indent=1).encode() + b"\n")
    write_png(runs / "sweep.png", sweep_points(results))
    if not as_json:
        _print(results, runs)
    return outcome


def _values(text: str) -> tuple[str, list[Any]]:
    """An option's name among the parameters, and its values as the command line would read them."""
    name, _, listed = text.partition("=")
    context = click.get_current_context()
    known = {p.name: p for p in context.command.params if p.name not in ("cache", "runs", "vary", "as_json", "debug")}
    parameter = known.get(name.strip().lstrip("-").replace("-", "_"))
    if parameter is None or parameter.name is None:
        raise InputError(f"--vary {text}: {name!r} is no option of train that can be varied")
    values = [parameter.type.convert(value, parameter, context) for value in listed.split()]
    if not values or len(set(values)) < len(values):
        raise InputError(f"--vary {text}: name values that differ, such as --vary 'cross-layers=1 2'")
    if parameter.multiple:
        values = [(value,) for value in values]
    return parameter.name, values


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(results: list[dict[str, Any]], runs: Path) -> None:
    table = Table(title="Held-out loss in nats a token, the best first")
    for heading in (*results[0]["varied"], "val. loss", "at step", "steps", "tokens", "seconds", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in sorted(results, key=lambda run: run["best_val_loss"]):
        loss = f"{run['best_val_loss']:.4f}" + (" (LEAKS)" if run["leaks"] else "")
        counts = [f"{round(run[name]):,}" for name in ("best_step", "steps", "tokens", "seconds", "parameters")]
        table.add_row(*run["varied"].values(), loss, *counts)
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    console.print(f"{runs / 'sweep.json'}, {runs / 'sweep.png'}", highlight=False, soft_wrap=True)

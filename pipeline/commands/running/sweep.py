"""`sweep`: the runs of a grid, and their table."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cache import open_cache
from cache.files import write_atomically
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.running.console import result_console
from pipeline.errors import RunError
from pipeline.processes import leads
from pipeline.report.plots import sweep_points, write_png
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.prepare import require_fit
from pipeline.training.run import train

_FIGURES = ("best_val_loss", "best_step", "steps", "tokens", "seconds", "parameters")


def sweep_grid(
    settings: TrainSettings, grid: dict[str, list[Any]], *, as_json: bool
) -> dict[str, Any]:
    """Train each combination; the outcome, whose table is printed unless it is to be JSON.

    Args:
        settings: of all runs; `run` is the folder of their folders.
        grid: the fields that vary, with their values.
        as_json: print nothing.

    Raises:
        CacheError, InputError: one of them cannot be trained.
    """
    combinations = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    with open_cache(settings.cache) as cache:
        for changes in combinations:
            require_fit(cache, replace(settings, **changes))
    if leads():
        settings.run.mkdir(parents=True, exist_ok=True)
        write_atomically(settings.run / "sweep.yaml", options_as_yaml().encode())
    results = [_run(settings, changes) for changes in combinations]
    if not leads():
        raise SystemExit(0)  # what there is to say, the leading process says
    outcome = {
        "kind": "llm-modules sweep",
        "varied": [name.replace("_", "-") for name in grid],
        "runs": results,
    }
    write_atomically(settings.run / "sweep.json", json.dumps(outcome, indent=1).encode() + b"\n")
    write_png(
        settings.run / "sweep.png", sweep_points([run for run in results if "failed" not in run])
    )
    if not as_json:
        _print(results, settings.run)
    return outcome


def _run(settings: TrainSettings, changes: dict[str, Any]) -> dict[str, Any]:
    """Train one combination; what it came to, or why it failed, which keeps no other from being
    trained."""
    named = {name.replace("_", "-"): _shown(value) for name, value in changes.items()}
    folder = settings.run / re.sub(
        r"[^\w.,=-]", "_", " ".join(f"{name}={value}" for name, value in named.items())
    )
    result = {"run": folder.name, "varied": named}
    try:
        record = train(replace(settings, run=folder, **changes), resume=RunFolder(folder).exists())
    except RunError as error:
        return result | {"failed": str(error)}
    return result | {"leaks": record["leaks"]} | {name: record["result"][name] for name in _FIGURES}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(results: list[dict[str, Any]], runs: Path) -> None:
    table = Table(title="Held-out loss in nats a token, the best first")
    for heading in (
        *results[0]["varied"],
        "val. loss",
        "at step",
        "steps",
        "tokens",
        "seconds",
        "parameters",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    failed = [run for run in results if "failed" in run]
    for run in sorted(
        (run for run in results if run not in failed), key=lambda run: run["best_val_loss"]
    ):
        loss = f"{run['best_val_loss']:.4f}" + (" (LEAKS)" if run["leaks"] else "")
        counts = [f"{round(run[name]):,}" for name in _FIGURES[1:]]
        table.add_row(*run["varied"].values(), loss, *counts)
    console = result_console(130)
    console.print(table)
    for run in failed:
        console.print(f"failed: {run['run']}: {run['failed']}", highlight=False, soft_wrap=True)
    console.print(f"{runs / 'sweep.json'}, {runs / 'sweep.png'}", highlight=False, soft_wrap=True)

"""`sweep`: train each combination of a grid, and print a table."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from cache import open_cache
from cache.files import write_atomically
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.running.console import result_console
from pipeline.errors import RunError
from pipeline.processes import is_main_process
from pipeline.report.figures import write_png
from pipeline.report.loss_plots import SweepPoint, sweep_plot
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.training.requirements import require_fit
from pipeline.training.run import train

_FIGURES = ("best_val_loss", "best_step", "steps", "tokens", "seconds", "parameters")


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep.

    Attributes:
        name: of its folder.
        varied: the values of the varied options, by name.
        figures: of its result, by name; None if it failed.
        failure: why it failed.
    """

    name: str
    varied: dict[str, str]
    leaks: bool = False
    figures: dict[str, float] | None = None
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return its entry in `sweep.json`."""
        own = {"run": self.name, "varied": self.varied}
        if self.figures is None:
            return own | {"failed": self.failure}
        return own | {"leaks": self.leaks} | self.figures


def sweep_grid(
    settings: TrainSettings, grid: dict[str, list[Any]], *, as_json: bool
) -> dict[str, Any]:
    """Train each combination; return the content of `sweep.json`.

    Args:
        settings: of all runs; `run` is the parent of their folders.
        grid: fields that vary, with their values.
        as_json: print no table.

    Raises:
        CacheError, InputError: one of the combinations cannot be trained.
    """
    combinations = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    with open_cache(settings.cache) as cache:
        for changes in combinations:
            require_fit(cache, replace(settings, **changes))
    if is_main_process():
        settings.run.mkdir(parents=True, exist_ok=True)
        write_atomically(settings.run / "sweep.yaml", options_as_yaml().encode())
    runs = [_train(settings, changes) for changes in combinations]
    if not is_main_process():
        raise SystemExit(0)  # the leading process reports
    outcome = {
        "kind": "llm-modules sweep",
        "varied": [name.replace("_", "-") for name in grid],
        "runs": [run.to_json() for run in runs],
    }
    write_atomically(settings.run / "sweep.json", json.dumps(outcome, indent=1).encode() + b"\n")
    points = [
        SweepPoint(run.varied, run.figures["best_val_loss"])
        for run in runs
        if run.figures is not None
    ]
    write_png(settings.run / "sweep.png", sweep_plot(points))
    if not as_json:
        _print(runs, settings.run)
    return outcome


def _train(settings: TrainSettings, changes: dict[str, Any]) -> SweepRun:
    """Train one combination; a failure ends no other run."""
    varied = {name.replace("_", "-"): _text(value) for name, value in changes.items()}
    title = " ".join(f"{name}={value}" for name, value in varied.items())
    folder = settings.run / re.sub(r"[^\w.,=-]", "_", title)
    try:
        record = train(replace(settings, run=folder, **changes), resume=RunFolder(folder).exists())
    except RunError as error:
        return SweepRun(folder.name, varied, failure=str(error))
    figures = {name: getattr(record.result, name) for name in _FIGURES}
    return SweepRun(folder.name, varied, leaks=record.leaks, figures=figures)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _print(runs: Sequence[SweepRun], folder: Path) -> None:
    table = Table(title="Held-out loss in nats per token, lowest first")
    columns = ("val. loss", "at step", "steps", "tokens", "seconds", "parameters")
    for heading in (*runs[0].varied, *columns):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = []
    for run in runs:
        if run.figures is not None:
            loss, *counts = (run.figures[name] for name in _FIGURES)
            cells = [f"{loss:.4f}" + (" (LEAKS)" if run.leaks else "")]
            cells += [f"{round(count):,}" for count in counts]
            rows.append((loss, [*run.varied.values(), *cells]))
    for _, row in sorted(rows, key=lambda row: row[0]):
        table.add_row(*row)
    console = result_console(130)
    console.print(table)
    failed = [f"failed: {run.name}: {run.failure}" for run in runs if run.figures is None]
    for line in (*failed, f"{folder / 'sweep.json'}, {folder / 'sweep.png'}"):
        console.print(line, highlight=False, soft_wrap=True)

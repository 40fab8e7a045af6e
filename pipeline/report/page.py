"""The report: one HTML page that needs nothing but itself, and its pictures beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from cache.files import write_atomically
from pipeline.report.plots import (
    as_svg,
    loss_curves,
    rate_curves,
    run_bars,
    write_png,
)


def write_report(
    folder: Path, results: dict[str, Any], curves: dict[str, list[dict[str, Any]]]
) -> None:
    """Write an evaluation's page, `report.html`, and its pictures as PNG files.

    Args:
        folder: of the evaluation.
        results: what `evaluation/results.json` holds.
        curves: the logged steps of each run, by name.
    """
    pictures = _pictures(results, curves)
    page = rendered(
        "page.html",
        title=f"What was transferred: {Path(results['run']).name}",
        results=results,
        pictures={name: as_svg(figure) for name, figure in pictures.items()},
        rates=[name for name in pictures if name.startswith("codec-")],
        best=_best(results["students"]),
        features=list(
            dict.fromkeys(name for run in results["students"] for name in run.get("features", {}))
        ),
    )
    write_atomically(folder / "report.html", page.encode())
    for name, figure in pictures.items():
        write_png(folder / f"{name}.png", figure)


def _best(runs: list[dict[str, Any]]) -> str | None:
    """The trained run of the least loss, by text where that can be told."""
    trained = [run for run in runs if run["steps"] and not run["leaks"]]
    measure = "bits_a_byte" if all("bits_a_byte" in run for run in runs) else "val_loss"
    return min(trained, key=lambda run: run[measure])["name"] if trained else None


def _pictures(
    results: dict[str, Any], curves: dict[str, list[dict[str, Any]]]
) -> dict[str, Figure]:
    pictures = {"runs": run_bars(results["students"]), "loss": loss_curves(curves)}
    for codec in results["codecs"]:
        if len(codec["tried"]) > 1:
            pictures[f"codec-{codec['layer']}"] = rate_curves(codec["tried"])
    return pictures


def rendered(template: str, **values: Any) -> str:
    """A page of this folder's templates, filled in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "share": lambda value: f"{100 * value:.1f}%",
        "size": _size,
    }
    return re.sub(r"\n\s*\n+", "\n", environment.get_template(template).render(**values))


def _size(value: float | None, unit: str = "") -> str:
    """A large number in three digits."""
    if value is None:
        return "–"
    for factor, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {name}{unit}"
    return f"{value:.3g} {unit}".strip()

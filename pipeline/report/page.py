"""The report: one HTML page that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cache.files import write_atomically
from pipeline.report.plots import as_svg, loss_curves, rate_curves


def write_report(path: Path, results: dict[str, Any], curves: dict[str, list[dict[str, Any]]]) -> None:
    """Write an evaluation's page.

    Args:
        path: the HTML file.
        results: what `evaluation/results.json` holds.
        curves: the logged steps of each run, by name.
    """
    page = rendered(
        "page.html",
        title=f"What was transferred: {Path(results['run']).name}",
        results=results,
        curves=as_svg(loss_curves(curves)),
        codec_curves={
            codec["layer"]: as_svg(rate_curves(codec["tried"])) for codec in results["codecs"] if len(codec["tried"]) > 1
        },
        best_loss=min(student["val_loss"] for student in results["students"]),
    )
    write_atomically(path, page.encode())


def rendered(template: str, **values: Any) -> str:
    """A page of this folder's templates, filled in."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)

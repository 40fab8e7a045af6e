"""The report of an evaluation: one self-contained HTML page, with its plots as PNG files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from cache.files import write_atomically
from pipeline.evaluation.results import CodecDistortion, EvaluationResults, StudentResult
from pipeline.report.figures import as_svg, write_png
from pipeline.report.layer_plot import layer_bars
from pipeline.report.loss_plots import loss_curves, run_bars
from pipeline.report.rate_plot import RatePoint, rate_plot


def write_report(
    folder: Path,
    results: EvaluationResults,
    metrics: Mapping[str, Sequence[Mapping[str, float]]],
) -> None:
    """Write `report.html` and its plots.

    Args:
        folder: of the evaluation.
        results: of the evaluation.
        metrics: the logged steps of each run, by name.
    """
    rate_plots = {
        codec.layer: _rate_plot(codec) for codec in results.codecs if len(codec.tried) > 1
    }
    mixed = {run.name: run.layer_weights for run in results.students if run.layer_weights}
    plots: dict[str, Figure] = {
        "runs": run_bars(results.students),
        "loss": loss_curves(metrics),
        **({"layers": layer_bars(mixed)} if mixed else {}),
        **{f"codec-{layer}": plot for layer, plot in rate_plots.items()},
    }
    ablations = [name for run in results.students for name in run.ablations or ()]
    page = render(
        "page.html",
        title=f"Evaluation of {Path(results.run).name}",
        results=results,
        student=results.student,
        plots={name: as_svg(figure) for name, figure in plots.items()},
        rate_plots={layer: as_svg(plot) for layer, plot in rate_plots.items()},
        best=_best(results.students),
        ablations=list(dict.fromkeys(ablations)),
    )
    write_atomically(folder / "report.html", page.encode())
    for name, figure in plots.items():
        write_png(folder / f"{name}.png", figure)


def _best(runs: Sequence[StudentResult]) -> str | None:
    """Return the trained run with the lowest loss, per byte where all runs have that."""
    trained = [run for run in runs if run.steps and not run.leaks]
    if not trained:
        return None
    if all(run.bits_per_byte is not None for run in runs):
        return min(trained, key=lambda run: run.bits_per_byte or 0.0).name
    return min(trained, key=lambda run: run.val_loss).name


def _rate_plot(codec: CodecDistortion) -> Figure:
    return rate_plot(
        [
            RatePoint(
                bits_per_value=step.bits_per_value,
                relative_error=step.relative_error,
                bound_bits=step.bound_bits,
                kl=step.kl,
            )
            for step in codec.tried
        ]
    )


def render(template: str, **values: Any) -> str:
    """Return a page of this folder's templates, filled in."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "share": lambda value: "–" if value is None else f"{100 * value:.1f}%",
        "digits": lambda value, digits: "–" if value is None else f"{value:.{digits}f}",
        "size": _size,
    }
    return re.sub(r"\n\s*\n+", "\n", environment.get_template(template).render(**values))


def _size(value: float | None, unit: str) -> str:
    """Return a number with three digits and a unit prefix."""
    if value is None:
        return "–"
    for factor, name in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {name}{unit}"
    return f"{value:.3g} {unit}"

"""Plots of losses: over training, of the runs of an evaluation, and of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.evaluation.results import StudentResult
from pipeline.report.figures import COLOURS, INK, NATS, finish, new_figure

_LINES = ("-", "--", ":")
_KIND_COLOURS = {
    "student": COLOURS[0],
    "layer": COLOURS[3],
    "control": COLOURS[1],
    "baseline": COLOURS[2],
}


@dataclass(frozen=True)
class SweepPoint:
    """A run of a sweep: the values of the varied options, by name, and its best held-out loss."""

    varied: Mapping[str, str]
    loss: float


def loss_curves(metrics: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Return the training loss (thin) and validation loss (dots) of runs over their steps.

    Args:
        metrics: the logged steps of each run, as in `metrics.jsonl`.
    """
    figure, axes = new_figure(3.6)
    for number, (name, steps) in enumerate(metrics.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = _LINES[number // len(COLOURS) % len(_LINES)]
        validation = [(step["step"], step["val_loss"]) for step in steps if "val_loss" in step]
        training = [
            (step["step"], step["loss"])
            for step in steps
            if "loss" in step and "val_loss" not in step
        ]
        if training:
            x, y = zip(*training, strict=True)
            axes.plot(x, y, color=colour, linestyle=line, linewidth=0.8, alpha=0.6)
        if validation:
            x, y = zip(*validation, strict=True)
            axes.plot(x, y, color=colour, linestyle=line, marker="o", markersize=3, label=name)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"loss ({NATS})")
    axes.set_yscale("log")
    finish(figure, axes)
    axes.legend(frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def sweep_plot(points: Sequence[SweepPoint]) -> Figure:
    """Return the best held-out loss over the first varied option; the others are series."""
    figure, axes = new_figure(4.2)
    first, *others = points[0].varied if points else ["no finished run"]
    ticks = list(dict.fromkeys(point.varied[first] for point in points))
    series: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        name = ", ".join(f"{other} {point.varied[other]}" for other in others)
        series.setdefault(name, []).append((ticks.index(point.varied[first]), point.loss))
    for number, (name, line) in enumerate(series.items()):
        x, y = zip(*line, strict=True)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(x, y, color=colour, marker="o", markersize=4, label=name or None)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(first)
    axes.set_ylabel(f"held-out loss ({NATS})")
    return finish(figure, axes)


def run_bars(runs: Sequence[StudentResult]) -> Figure:
    """Return the held-out loss of each run with its confidence interval, the student on top.

    In bits per byte, which do not depend on the tokenization, where all runs have them.
    """
    per_byte = all(run.bits_per_byte is not None for run in runs)
    figure, axes = new_figure(0.7 + 0.34 * len(runs))
    shown = list(reversed(runs))
    for kind in _KIND_COLOURS:  # the order of the legend
        for place, run in enumerate(shown):
            if run.kind == kind:
                _bar(axes, place, run, per_byte=per_byte)
    axes.set_yticks(
        range(len(shown)), [run.name + (" (leaks)" if run.leaks else "") for run in shown]
    )
    unit = "bits per byte" if per_byte else NATS
    axes.set_xlabel(f"held-out loss ({unit}), with 95 % interval over rows")
    return finish(figure, axes)


def _bar(axes: Axes, place: int, run: StudentResult, *, per_byte: bool) -> None:
    scale = (run.bits_per_byte or 0.0) / run.val_loss if per_byte and run.val_loss else 1.0
    low, high = run.val_loss_interval or (run.val_loss, run.val_loss)
    in_legend = run.kind in axes.get_legend_handles_labels()[1]
    axes.barh(
        place,
        run.val_loss * scale,
        color=_KIND_COLOURS[run.kind],
        height=0.62,
        alpha=0.85,
        label=None if in_legend else run.kind,
    )
    errors = [[max(0.0, run.val_loss - low) * scale], [max(0.0, high - run.val_loss) * scale]]
    axes.errorbar(
        run.val_loss * scale,
        place,
        xerr=errors,
        fmt="none",
        ecolor=INK,
        elinewidth=1.4,
        capsize=3,
    )

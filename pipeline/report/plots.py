"""Pictures of a run, legible on a light and on a dark page."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = (
    "#2f7ed8", "#d9762b", "#7a7f87", "#3a9d6a", "#a35fc0", "#c94f4f", "#18a5a7", "#b59a1f", "#e07fb0", "#8c6d4f",
)  # fmt: skip
_INK = "#808890"


def loss_curves(curves: dict[str, list[dict[str, Any]]]) -> Figure:
    """Training loss (thin) and validation loss (dots) of some runs over their steps."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, records) in enumerate(curves.items()):
        colour, line = COLOURS[place % len(COLOURS)], ("-", "--", ":")[place // len(COLOURS) % 3]
        train = [
            (record["step"], record["loss"])
            for record in records
            if "loss" in record and "val_loss" not in record
        ]
        valid = [(record["step"], record["val_loss"]) for record in records if "val_loss" in record]
        if train:
            axes.plot(
                *zip(*train, strict=True), color=colour, linestyle=line, linewidth=0.8, alpha=0.6
            )
        if valid:
            axes.plot(
                *zip(*valid, strict=True),
                color=colour,
                linestyle=line,
                marker="o",
                markersize=3,
                label=name,
            )
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_yscale("log")
    figure = _finished(figure, axes)
    axes.legend(frameon=False, labelcolor=_INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def rate_curves(points: list[dict[str, Any]]) -> Figure:
    """Bits a value against what is lost, with the Gaussian rate-distortion bound.

    Args:
        points: of each codec `bits_per_value`, `relative_error`, `bound_bits` and, where it was
            measured, `kl`; `codec` and `setting` name it, and are `klt`'s where they are left out.
    """
    measure = "kl" if any(point.get("kl") for point in points) else "relative_error"
    shown = sorted(
        (point for point in points if point.get(measure)), key=lambda point: point["bits_per_value"]
    )
    curve = [point for point in shown if point.get("codec", "klt") == "klt"]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        *zip(*[(point["bits_per_value"], point[measure]) for point in curve], strict=True),
        color=COLOURS[0], marker="o", markersize=4, label="klt",
    )  # fmt: skip
    bound = [
        (point["bound_bits"], point[measure]) for point in curve if point["bound_bits"] is not None
    ]
    axes.plot(
        *zip(*bound, strict=True),
        color=_INK,
        linestyle="--",
        label="Gaussian rate-distortion bound",
    )
    others = [point for point in shown if point not in curve]
    for point, colour in zip(others, COLOURS[1:] * len(others), strict=False):
        label = f"{point['codec']}, {point['setting']}"
        axes.plot(
            point["bits_per_value"],
            point[measure],
            color=colour,
            marker="s",
            linestyle="",
            label=label,
        )
    axes.set_xlabel("bits a value")
    axes.set_ylabel("KL divergence (nats a token)" if measure == "kl" else "relative error")
    axes.set_yscale("log")
    return _finished(figure, axes)


def sweep_points(runs: list[dict[str, Any]]) -> Figure:
    """Best held-out loss of the runs of a grid: the first option varied along the axis, the others
    as series."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    first, *others = runs[0]["varied"] if runs else ["no run was finished"]
    places = list(dict.fromkeys(run["varied"][first] for run in runs))
    series: dict[str, list[tuple[int, float]]] = {}
    for run in runs:
        name = ", ".join(f"{other} {run['varied'][other]}" for other in others)
        series.setdefault(name, []).append(
            (places.index(run["varied"][first]), run["best_val_loss"])
        )
    for (name, points), colour in zip(series.items(), COLOURS * len(series), strict=False):
        axes.plot(
            *zip(*points, strict=True), color=colour, marker="o", markersize=4, label=name or None
        )
    axes.set_xticks(range(len(places)), places)
    axes.set_xlabel(first)
    axes.set_ylabel("held-out loss (nats a token)")
    return _finished(figure, axes)


def run_bars(runs: list[dict[str, Any]]) -> Figure:
    """Held-out loss of each run with its confidence interval, the student's on top.

    Losses are drawn in bits a byte where all runs have them, for these do not depend on tokens;
    else in nats a token.

    Args:
        runs: of each `name`, `kind`, `val_loss`, `val_loss_interval`, `leaks` and perhaps
            `bits_a_byte`.
    """
    by_byte = all("bits_a_byte" in run for run in runs)
    figure = Figure(figsize=(8, 0.7 + 0.34 * len(runs)), layout="constrained")
    axes = figure.add_subplot()
    shown = list(reversed(runs))
    for kind, colour in zip(
        ("student", "layer", "control", "baseline"),
        (COLOURS[0], COLOURS[3], *COLOURS[1:3]),
        strict=True,
    ):
        for place, run in enumerate(shown):
            if run["kind"] != kind:
                continue
            scale = run["bits_a_byte"] / run["val_loss"] if by_byte else 1.0
            loss, (low, high) = (
                run["val_loss"],
                run["val_loss_interval"] or (run["val_loss"], run["val_loss"]),
            )
            named = kind not in axes.get_legend_handles_labels()[1]
            axes.barh(
                place,
                loss * scale,
                color=colour,
                height=0.62,
                alpha=0.85,
                label=kind if named else None,
            )
            spread = [[max(0.0, loss - low) * scale], [max(0.0, high - loss) * scale]]
            axes.errorbar(
                loss * scale, place, xerr=spread, fmt="none", ecolor=_INK, elinewidth=1.4, capsize=3
            )
    names = [run["name"] + (" (leaks)" if run["leaks"] else "") for run in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel(
        f"held-out loss ({'bits a byte' if by_byte else 'nats a token'}), with the 95 % interval"
        " over rows"
    )
    return _finished(figure, axes)


def _finished(figure: Figure, axes: Axes) -> Figure:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    return figure


def write_png(path: Path, figure: Figure) -> None:
    """Write a picture to a file, on white."""
    figure.patch.set(alpha=1, facecolor="white")
    FigureCanvasAgg(figure).print_png(path)


def as_svg(figure: Figure) -> str:
    """A picture to be put into a page."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "llm-modules", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    return re.sub(
        r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg[svg.index("<svg") :], count=1
    )

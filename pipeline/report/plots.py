"""Pictures of a run as inline SVG, legible on a light and on a dark page."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = ("#2f7ed8", "#d9762b", "#7a7f87", "#3a9d6a", "#a35fc0")
_INK = "#808890"


def loss_curves(curves: dict[str, list[dict[str, Any]]]) -> str:
    """Training loss (thin) and validation loss (dots) of some runs over their steps, as SVG."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for (name, records), colour in zip(curves.items(), COLOURS * (len(curves) // len(COLOURS) + 1), strict=False):
        train = [(record["step"], record["loss"]) for record in records if "loss" in record and "val_loss" not in record]
        valid = [(record["step"], record["val_loss"]) for record in records if "val_loss" in record]
        if train:
            axes.plot(*zip(*train, strict=True), color=colour, linewidth=0.8, alpha=0.6)
        if valid:
            axes.plot(*zip(*valid, strict=True), color=colour, marker="o", markersize=3, label=name)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats a token)")
    axes.set_yscale("log")
    axes.legend(frameon=False, labelcolor=_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    return _as_svg(figure)


def _as_svg(figure: Figure) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "llm-modules", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', svg[svg.index("<svg") :], count=1)

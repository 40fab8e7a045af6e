"""Figures that are legible on light and dark pages, as SVG or PNG."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = (
    "#2f7ed8",
    "#d9762b",
    "#7a7f87",
    "#3a9d6a",
    "#a35fc0",
    "#c94f4f",
    "#18a5a7",
    "#b59a1f",
    "#e07fb0",
    "#8c6d4f",
)
INK = "#808890"
NATS = "nats per token"


def new_figure(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a page's width, with its axes."""
    figure = Figure(figsize=(8, height), layout="constrained")
    return figure, figure.add_subplot()


def finish(figure: Figure, axes: Axes) -> Figure:
    """Add the legend, set colours that suit any background, and return the figure."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=INK)
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    return figure


def write_png(path: Path, figure: Figure) -> None:
    """Write a figure to a file, on white."""
    figure.patch.set(alpha=1, facecolor="white")
    FigureCanvasAgg(figure).print_png(path)


def as_svg(figure: Figure) -> str:
    """Return a figure as an SVG element of full width, the same bytes each time."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "llm-modules", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    size = r'width="[\d.]+pt" height="[\d.]+pt"'
    return re.sub(size, 'width="100%"', svg[svg.index("<svg") :], count=1)

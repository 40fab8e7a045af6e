"""Plot of the learned weights of mixed layers."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from pipeline.report.figures import COLOURS, INK, finish, new_figure

_WIDTH = 0.6
"""Width of a layer's bars together."""


def layer_bars(weights: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return the weights of the teacher's layers in the mean that each run reads.

    Args:
        weights: by run, then by layer.
    """
    figure, axes = new_figure(2.8)
    layers = list(dict.fromkeys(layer for of_run in weights.values() for layer in of_run))
    width = _WIDTH / len(weights)
    for number, (name, of_run) in enumerate(weights.items()):
        left = (number - (len(weights) - 1) / 2) * width
        places = [layers.index(layer) + left for layer in of_run]
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(places, list(of_run.values()), width=width, color=colour, alpha=0.85, label=name)
    axes.axhline(1 / len(layers), color=INK, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(layers)), layers)
    axes.set_xlabel("teacher layer")
    axes.set_ylabel("weight in the mean")
    finish(figure, axes)
    axes.legend(frameon=False, labelcolor=INK, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure

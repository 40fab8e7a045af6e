"""Plot of rate against distortion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from pipeline.report.figures import COLOURS, INK, NATS, finish, new_figure


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """Rate and distortion of a codec at one setting.

    Attributes:
        bound_bits: the Gaussian rate-distortion bound at this distortion; None if there is none.
        kl: KL divergence in nats per token; None if not measured.
        codec, setting: its name; points of `klt` form a curve.
    """

    bits_per_value: float
    relative_error: float
    bound_bits: float | None
    kl: float | None
    codec: str = "klt"
    setting: str = ""


def rate_plot(points: Sequence[RatePoint]) -> Figure:
    """Return rate against KL divergence, or relative error if that was not measured.

    With the Gaussian rate-distortion bound, for the points of `klt`.
    """
    by_kl = any(point.kl for point in points)

    def distortion(point: RatePoint) -> float:
        return (point.kl or 0.0) if by_kl else point.relative_error

    shown = sorted(
        (point for point in points if distortion(point)), key=lambda point: point.bits_per_value
    )
    curve = [point for point in shown if point.codec == "klt"]
    bounds = [
        (point.bound_bits, distortion(point)) for point in curve if point.bound_bits is not None
    ]
    figure, axes = new_figure(4.2)
    axes.plot(
        [point.bits_per_value for point in curve],
        list(map(distortion, curve)),
        color=COLOURS[0],
        marker="o",
        markersize=4,
        label="klt",
    )
    axes.plot(
        [bits for bits, _ in bounds],
        [value for _, value in bounds],
        color=INK,
        linestyle="--",
        label="Gaussian rate-distortion bound",
    )
    others = [point for point in shown if point.codec != "klt"]
    for number, point in enumerate(others):
        axes.plot(
            point.bits_per_value,
            distortion(point),
            color=COLOURS[1 + number % (len(COLOURS) - 1)],
            marker="s",
            linestyle="",
            label=f"{point.codec}, {point.setting}",
        )
    axes.set_xlabel("bits per value")
    axes.set_ylabel(f"KL divergence ({NATS})" if by_kl else "relative error")
    axes.set_yscale("log")
    return finish(figure, axes)

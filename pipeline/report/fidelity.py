"""The comparison of codecs as an HTML page, plots and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from pipeline.report.figures import as_svg
from pipeline.report.page import render
from pipeline.report.rate_plot import RatePoint, rate_plot
from pipeline.upkeep.layer_fidelity import LayerFidelity


def fidelity_json(cache: str, layers: Sequence[LayerFidelity]) -> dict[str, Any]:
    """Return the content of `fidelity.json`; `cache` is an address."""
    return {
        "kind": "llm-modules fidelity",
        "cache": cache,
        "layers": [asdict(layer) for layer in layers],
    }


def write_fidelity(folder: Path, cache: str, layers: Sequence[LayerFidelity]) -> None:
    """Write `fidelity.json`, `fidelity.html`, and `fidelity.svg` (`fidelity_LAYER.svg` of several).

    Args:
        folder: created if missing.
        cache: its address.
        layers: all codecs on each layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = {layer.layer: as_svg(rate_plot(_points(layer))) for layer in layers}
    for number, plot in plots.items():
        name = "fidelity.svg" if len(plots) == 1 else f"fidelity_{number}.svg"
        write_atomically(folder / name, plot.encode())
    content = json.dumps(fidelity_json(cache, layers), indent=1).encode() + b"\n"
    write_atomically(folder / "fidelity.json", content)
    page = render("fidelity.html", title=f"Codecs on {cache}", layers=layers, plots=plots)
    write_atomically(folder / "fidelity.html", page.encode())


def _points(layer: LayerFidelity) -> list[RatePoint]:
    return [
        RatePoint(
            codec=point.codec,
            setting=point.setting,
            bits_per_value=point.bits_per_value,
            relative_error=point.relative_error,
            bound_bits=point.bound_bits,
            kl=point.kl,
        )
        for point in layer.points
    ]

"""The comparison of codecs as files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pipeline.report.fidelity import fidelity_json, write_fidelity
from pipeline.upkeep.layer_fidelity import LayerFidelity, Point


def point(codec: str, bits: float, error: float) -> Point:
    return Point(
        codec=codec,
        setting="<b>",
        bits_per_value=bits,
        relative_error=error,
        bound_bits=bits - 0.3 if error else None,
        kl=error**2 or None,
        kl_error=error**2 / 10,
    )


def fidelity(layer: int) -> LayerFidelity:
    return LayerFidelity(
        layer=layer,
        stored_as="bf16",
        measured_examples=5,
        measured_tokens=500,
        kl_tokens=100,
        calibration_examples=3,
        calibration_tokens=300,
        bound_is_low=False,
        unmet=[],
        points=[
            point("bf16", 16, 0.0),
            point("int8", 8, 0.01),
            point("klt", 3, 0.05),
            point("klt", 2, 0.1),
        ],
    )


@pytest.mark.parametrize(
    ("numbers", "plots"),
    [((-1,), ["fidelity.svg"]), ((-1, 0), ["fidelity_-1.svg", "fidelity_0.svg"])],
)
def test_json_page_and_a_plot_per_layer(
    numbers: tuple[int, ...], plots: list[str], tmp_path: Path
) -> None:
    out, layers = tmp_path / "new" / "out", [fidelity(number) for number in numbers]
    write_fidelity(out, "a&b", layers)
    names = sorted(path.name for path in out.iterdir())
    assert names == sorted(["fidelity.html", "fidelity.json", *plots])
    content = json.loads((out / "fidelity.json").read_text())
    assert content == fidelity_json("a&b", layers)
    assert [layer["points"][2]["bound_bits"] for layer in content["layers"]] == [2.7] * len(layers)
    for plot in plots:
        assert ElementTree.parse(out / plot).getroot().tag.endswith("svg")
    page = (out / "fidelity.html").read_text()
    assert page.count("<svg") == len(layers)
    assert "a&amp;b" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_layers_without_divergences_are_drawn_by_their_error(tmp_path: Path) -> None:
    layer = fidelity(0)
    write_fidelity(tmp_path, "cache", [layer])
    assert "KL divergence" in (tmp_path / "fidelity.svg").read_text()
    without = [replace(point, kl=None, kl_error=None) for point in layer.points]
    write_fidelity(tmp_path, "cache", [replace(layer, points=without)])
    plot = (tmp_path / "fidelity.svg").read_text()
    assert "relative error" in plot and "KL divergence" not in plot

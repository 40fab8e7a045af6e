"""The comparison of the codecs as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.report.fidelity import write_fidelity


def point(codec: str, bits: float, error: float, **more: Any) -> dict[str, Any]:
    bound = bits - 0.3 if error else None
    return {"codec": codec, "setting": "<b>", "bits_per_value": bits, "relative_error": error, "bound_bits": bound,
            "kl": error**2 or None, "kl_error": error**2 / 10, **more}  # fmt: skip


def result(*layers: int) -> dict[str, Any]:
    points = [
        point("bf16", 16, 0.0),
        point("int8", 8, 0.01),
        point("klt", 3, 0.05),
        point("klt", 2, 0.1),
    ]
    told = {"stored_as": "bf16", "measured_examples": 5, "measured_tokens": 500, "kl_tokens": 100, "calibration_examples": 3,
            "calibration_tokens": 300, "points": points}  # fmt: skip
    return {
        "kind": "llm-modules fidelity",
        "cache": "a&b",
        "layers": [{"layer": layer, **told} for layer in layers],
    }


@pytest.mark.parametrize(
    ("layers", "pictures"),
    [((-1,), ["fidelity.svg"]), ((-1, 0), ["fidelity_-1.svg", "fidelity_0.svg"])],
)
def test_figures_page_and_a_picture_a_layer(
    layers: tuple[int, ...], pictures: list[str], tmp_path: Path
) -> None:
    write_fidelity(tmp_path / "new" / "out", result(*layers))
    out = tmp_path / "new" / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["fidelity.html", "fidelity.json", *pictures]
    )
    assert json.loads((out / "fidelity.json").read_text()) == result(*layers)
    for picture in pictures:
        assert ElementTree.parse(out / picture).getroot().tag.endswith("svg")
    page = (out / "fidelity.html").read_text()
    assert page.count("<svg") == len(layers)
    assert "a&amp;b" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_layers_without_divergences_are_drawn_by_their_error(tmp_path: Path) -> None:
    without = result(0)
    for each in without["layers"][0]["points"]:
        each["kl"] = each["kl_error"] = None
    write_fidelity(tmp_path, without)
    assert (tmp_path / "fidelity.svg").stat().st_size > 1000

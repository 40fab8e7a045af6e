"""The comparison of the codecs as a page, a picture and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from pipeline.report.page import rendered
from pipeline.report.plots import as_svg, rate_curves


def write_fidelity(folder: Path, result: dict[str, Any]) -> None:
    """Write `fidelity.json`, `fidelity.html`, and a picture of each layer: `fidelity.svg`, or
    `fidelity_LAYER.svg` of several.

    Args:
        folder: made if need be.
        result: what `cache fidelity --json` prints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {layer["layer"]: as_svg(rate_curves(layer["points"])) for layer in result["layers"]}
    for layer, picture in pictures.items():
        name = "fidelity.svg" if len(pictures) == 1 else f"fidelity_{layer}.svg"
        write_atomically(folder / name, picture.encode())
    write_atomically(folder / "fidelity.json", json.dumps(result, indent=1).encode() + b"\n")
    page = rendered(
        "fidelity.html", title=f"Codecs on {result['cache']}", result=result, pictures=pictures
    )
    write_atomically(folder / "fidelity.html", page.encode())

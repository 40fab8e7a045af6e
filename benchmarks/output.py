"""The `--json` option of every benchmark, and the file it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

json_option = click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Also write the figures here."
)


def write_json(path: Path | None, figures: Any) -> None:
    """Write the figures, if the option was used."""
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n")

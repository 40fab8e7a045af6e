"""JSON files among the attachments of a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import InputError


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON to a file in a new folder."""
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value) + "\n")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); check the cache with `cache verify`"
        ) from error

"""The console for tables of results."""

from __future__ import annotations

import sys

from rich.console import Console


def result_console(width: int = 150) -> Console:
    """Return stdout, as wide as its terminal, or `width` columns where it is none."""
    return Console(width=None if sys.stdout.isatty() else width)

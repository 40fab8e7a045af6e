"""Where tables of results are printed."""

from __future__ import annotations

import sys

from rich.console import Console


def result_console(width: int = 150) -> Console:
    """Stdout, as wide as its terminal; where it is none, of a width that tables fit into."""
    return Console(width=None if sys.stdout.isatty() else width)

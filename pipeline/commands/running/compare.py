"""`evaluate --compare`: the page and the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.commands.running.console import result_console
from pipeline.report.compare import compared_table, kept_apart, write_comparison


def write_and_print(comparison: dict[str, Any], out: Path, *, as_json: bool) -> None:
    """Write a comparison into a folder, and print its tables unless it is to be JSON."""
    write_comparison(out, comparison)
    if as_json:
        return
    console = result_console()
    if apart := kept_apart(comparison):
        console.print(apart, highlight=False)
    for group in comparison["groups"]:
        heading, *rows = compared_table(group)
        table = Table(title=f"{group['label']}; seeds {', '.join(map(str, group['seeds']))}")
        for place, name in enumerate(heading):
            table.add_column(name, justify="right" if place else "left", no_wrap=not place)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{out / 'comparison.html'}, .md, .json", highlight=False, soft_wrap=True)

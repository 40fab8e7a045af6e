"""`evaluate --compare`: write the report and print the tables."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from pipeline.commands.running.console import result_console
from pipeline.evaluation.compare import Comparison
from pipeline.report.compare import comparison_table, differing_note, write_comparison


def write_and_print(comparison: Comparison, out: Path, *, as_json: bool) -> None:
    """Write a comparison into a folder; print its tables unless `as_json`."""
    write_comparison(out, comparison)
    if as_json:
        return
    console = result_console()
    if note := differing_note(comparison):
        console.print(note, highlight=False)
    for group in comparison.groups:
        heading, *rows = comparison_table(group)
        table = Table(title=f"{group.label}; seeds {', '.join(map(str, group.seeds))}")
        for place, name in enumerate(heading):
            table.add_column(name, justify="right" if place else "left", no_wrap=not place)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(f"{out / 'comparison.html'}, .md, .json", highlight=False, soft_wrap=True)

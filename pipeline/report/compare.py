"""The comparison of several runs as an HTML page, a Markdown table, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

from cache.files import write_atomically
from pipeline.evaluation.compare import ComparedGroup, Comparison, Spread
from pipeline.report.page import render

COLUMNS = {
    "val_loss": ("loss, nats per token", "{:.4f}"),
    "bits_a_byte": ("bits per byte", "{:.4f}"),
    "transfer": ("transfer score", "{:.3f}"),
    "exact_match": ("right answers", "{:.1%}"),
    "score": ("score", "{:.3f}"),
    "fields": ("right fields", "{:.1%}"),
    "thought_solution_form": ("form", "{:.0%}"),
    "stopped": ("stopped", "{:.0%}"),
    "repetition": ("repetition", "{:.1%}"),
    "tokens": ("training tokens", "{:,.0f}"),
    "seconds": ("training, s", "{:,.0f}"),
    "training_flops": ("training, FLOP", "{:.2e}"),
    "generated_tokens_per_second": ("generated tokens/s", "{:.0f}"),
}
"""Heading and format of each figure, by name."""


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write `comparison.json`, `comparison.md` and `comparison.html` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [(group, comparison_table(group)) for group in comparison.groups]
    note = differing_note(comparison)
    note = f"{note[0].upper()}{note[1:]}." if note else ""
    text = "\n".join(
        f"**{group.label}**, seeds {', '.join(map(str, group.seeds))}\n\n{_markdown(table)}"
        for group, table in tables
    )
    page = render("compare.html", title="Comparison of runs", tables=tables, note=note)
    content = json.dumps(comparison.to_json(), indent=1).encode() + b"\n"
    write_atomically(folder / "comparison.json", content)
    write_atomically(folder / "comparison.md", (f"{note}\n\n{text}" if note else text).encode())
    write_atomically(folder / "comparison.html", page.encode())


def differing_note(comparison: Comparison) -> str:
    """Return why there are several groups; empty for one."""
    differing = ", ".join(comparison.differing)
    return f"not averaged across groups, which differ in: {differing}" if differing else ""


def comparison_table(group: ComparedGroup) -> list[list[str]]:
    """Return heading and rows; several seeds as mean, minimum and maximum."""
    shown = [name for name in COLUMNS if any(name in row.figures for row in group.rows)]
    lines = [["run", *(COLUMNS[name][0] for name in shown)]]
    for row in group.rows:
        cells = [_cell(row.figures.get(name), COLUMNS[name][1]) for name in shown]
        lines.append([row.name + (" (leaks)" if row.leaks else ""), *cells])
    return lines


def _cell(spread: Spread | None, form: str) -> str:
    if spread is None:
        return "–"
    mean, low, high = (form.format(value) for value in (spread.mean, spread.low, spread.high))
    return mean if low == high else f"{mean} ({low} to {high})"


def _markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "| --- " * len(table[0]) + "|", *lines[1:]]) + "\n"

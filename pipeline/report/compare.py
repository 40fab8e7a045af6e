"""The comparison of several runs as a page, a table for documents, and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cache.files import write_atomically
from pipeline.report.page import rendered

COLUMNS = {
    "val_loss": ("loss, nats a token", "{:.4f}"),
    "bits_a_byte": ("bits a byte", "{:.4f}"),
    "transfer": ("transfer score", "{:.3f}"),
    "exact_match": ("right answers", "{:.1%}"),
    "score": ("score", "{:.3f}"),
    "fields": ("right fields", "{:.1%}"),
    "thought_solution_form": ("form", "{:.0%}"),
    "stopped": ("stopped", "{:.0%}"),
    "repetition": ("repetition", "{:.1%}"),
    "tokens": ("tokens read", "{:,.0f}"),
    "seconds": ("training, s", "{:,.0f}"),
    "training_flops": ("training, FLOP", "{:.2e}"),
    "generated_tokens_per_second": ("writes, tokens/s", "{:.0f}"),
}
"""What is shown of each run, by the name of its figure: heading and form."""


def write_comparison(folder: Path, comparison: dict[str, Any]) -> None:
    """Write `comparison.json`, `comparison.md` and `comparison.html`.

    Args:
        folder: made if need be.
        comparison: what `evaluate --compare --json` prints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables = [(group, compared_table(group)) for group in comparison["groups"]]
    clause = kept_apart(comparison)
    apart = f"{clause[0].upper()}{clause[1:]}." if clause else ""
    text = "\n".join(
        f"**{group['label']}**, seeds {', '.join(map(str, group['seeds']))}\n\n{_markdown(table)}"
        for group, table in tables
    )
    page = rendered("compare.html", title="Runs side by side", tables=tables, apart=apart)
    write_atomically(folder / "comparison.json", json.dumps(comparison, indent=1).encode() + b"\n")
    write_atomically(folder / "comparison.md", (f"{apart}\n\n{text}" if apart else text).encode())
    write_atomically(folder / "comparison.html", page.encode())


def kept_apart(comparison: dict[str, Any]) -> str:
    """Why a comparison has several groups, in words; nothing where it has one."""
    apart = ", ".join(comparison["apart"])
    return f"not averaged over each other, for they differ in: {apart}" if apart else ""


def compared_table(group: dict[str, Any]) -> list[list[str]]:
    """Heading and rows of a group; figures of several seeds as their mean, with the least and the
    greatest."""
    shown = [name for name in COLUMNS if any(name in row["figures"] for row in group["rows"])]
    lines = [["run", *(COLUMNS[name][0] for name in shown)]]
    for row in group["rows"]:
        cells = [_cell(row["figures"].get(name), COLUMNS[name][1]) for name in shown]
        lines.append([row["name"] + (" (leaks)" if row["leaks"] else ""), *cells])
    return lines


def _cell(spread: dict[str, Any] | None, form: str) -> str:
    if spread is None:
        return "–"
    mean, low, high = (form.format(spread[name]) for name in ("mean", "low", "high"))
    return mean if low == high else f"{mean} ({low} to {high})"


def _markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "| --- " * len(table[0]) + "|", *lines[1:]]) + "\n"

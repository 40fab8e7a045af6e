"""Run all benchmarks at a size for two CPU cores, and tabulate their ratios to peers and limits.

Run `python benchmarks/all.py [--only NAME …] [--folder F] [--page FILE]`. The benchmarks run one
after the other, each in a process of its own; their tables and figures are NAME.txt and NAME.json
in the folder. The table of ratios is inserted between the marks of a page (docs/BENCHMARKS.md). A
benchmark that fails is reported, and the others still run. Not included: `teacher_pass.py` and
`student_loss.py`, which compare settings, not peers, and `soak.py`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import ratios
from ratios import Ratio
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


BENCHMARKS: dict[str, tuple[tuple[str, ...], Callable[[Any], list[Ratio]]]] = {
    "start_up": ((), ratios.of_start_up),
    "cache_read": (("--megabytes", "600"), ratios.of_reading),
    "cache_open": (("--examples", "500000"), ratios.of_opening),
    "codecs": (("--tokens", "16384"), ratios.of_codecs),
    "extract": (("--limit", "400"), ratios.of_extraction),
    "extract_overlap": (("--limit", "600"), ratios.of_overlap),
    "object_store": ((), ratios.of_stores),
    "train": (("--limit", "200"), ratios.of_training),
    "generate": (("--new-tokens", "128"), ratios.of_generation),
}
"""Options of each benchmark, and the function that returns its ratios."""


def run(name: str, folder: Path) -> tuple[list[Ratio], float]:
    """Run one benchmark; return its ratios, and its seconds."""
    options, ratios_of = BENCHMARKS[name]
    path, began = folder / f"{name}.json", time.monotonic()
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options, "--json", path],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "TQDM_DISABLE": "1"},
    )
    (folder / f"{name}.txt").write_text(done.stdout)
    return ratios_of(json.loads(path.read_text())), time.monotonic() - began


def as_markdown(
    lines: list[tuple[str, Ratio]], failed: list[str], seconds: dict[str, float]
) -> str:
    """Return the table for a page, headed by date and machine."""
    cores = f"{os.cpu_count()} cores of {platform.machine()}"
    head = (
        f"{date.today().isoformat()}, {cores}, torch {version('torch')},"
        f" {sum(seconds.values()) / 60:.0f} minutes in all."
    )
    rows = [
        f"| `{name}.py` | {ratio.figure} | {ratio.relative_to} | **{ratio.value:.3g}**"
        f" | {ratio.better} |"
        for name, ratio in lines
    ]
    table = [
        "| benchmark | quantity | compared with | ratio | better is |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join([head, "", *table, *(f"\nFailed: `{name}.py`." for name in failed)])


@click.command(help=__doc__)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(BENCHMARKS)),
    help="Only this benchmark; may be repeated.",
)
@click.option(
    "--folder", default="build/benchmarks", show_default=True, type=click.Path(path_type=Path)
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Insert the table into this page.",
)
def main(only: tuple[str, ...], folder: Path, page: Path | None) -> None:
    """Run, print, write."""
    if page is not None and not all(mark in page.read_text(encoding="utf-8") for mark in MARKS):
        raise click.BadParameter(
            f"{page}: has no marks {' and '.join(MARKS)} to insert the table between"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple[str, Ratio]] = []
    failed, seconds = list[str](), dict[str, float]()
    for name in only or BENCHMARKS:
        click.echo(f"{name} …", err=True)
        try:
            ratios_of_one, seconds[name] = run(name, folder)
            lines += [(name, ratio) for ratio in ratios_of_one]
        except Exception as error:  # the other benchmarks still run
            click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
            failed.append(name)
    table = Table(title="Ratios to peers and limits")
    for heading in ("benchmark", "quantity", "compared with", "ratio", "better is"):
        table.add_column(heading, justify="right" if heading == "ratio" else "left")
    for name, ratio in lines:
        table.add_row(name, ratio.figure, ratio.relative_to, f"{ratio.value:.3g}", ratio.better)
    Console(width=150).print(table)
    figures = [{"benchmark": name, **ratio.to_json()} for name, ratio in lines]
    (folder / "all.json").write_text(
        json.dumps({"ratios": figures, "failed": failed, "seconds": seconds}, indent=1) + "\n"
    )
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        filled = f"{before}{MARKS[0]}\n\n{as_markdown(lines, failed, seconds)}\n\n{MARKS[1]}{after}"
        page.write_text(filled, encoding="utf-8")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Measure start-up: time and imports of `--help`, and of the refusal of wrong input.

Run `python benchmarks/start_up.py [--rounds N] [--root FOLDER] [--only WORDS] [--json FILE]`. Each
call is a new process. Seconds are the median of several rounds after a warm-up; modules are counted
at the end of another call. The limits are half a second for help, and a second for a wrong path
or option value.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from output import json_option, write_json
from rich.console import Console
from rich.table import Table

HELP_LIMIT, WRONG_LIMIT = 0.5, 1.0
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "pyarrow",
    "h5py",
    "zarr",
    "matplotlib",
    "pandas",
    "scipy",
    "sympy",
    "numpy",
    "obstore",
    "rich",
)
"""Slow libraries to report by name; each takes longer to import than all other modules."""
COMMANDS = (
    "",
    "extract",
    "train",
    "sweep",
    "evaluate",
    "generate",
    "chat",
    "cache",
    "cache inspect",
    "cache verify",
    "cache repair",
    "cache convert",
    "cache fidelity",
)
WRONG = (
    "extrct",
    "extract --cache {new} --dataset {none}.jsonl",
    "extract --cache {new} --teacher {none}",
    "extract --cache {new} --layers 99",
    "extract --cache {new} --layers last",
    "extract --cache {new} --codec mp3",
    "extract --cache {new} --codec klt --fidelity kl=much",
    "extract --cache {new} --device cuda:9x",
    "extract --cache {new} --template none",
    "extract --cache {new} --config {none}.yaml",
    "extract --cache {other}",
    "extract --cache s3://bucket",
    "train --cache {none} --run {new}",
    "sweep --cache {none} --runs {new} --vary gate=none",
    "evaluate --run {none}",
    "evaluate --compare {none} {other}",
    "generate --run {none} --prompt x",
    "chat --run {other}",
    "cache inspect {none}",
    "cache verify {other}",
    "cache repair {none}",
    "cache convert {none} {new}",
    "cache fidelity {none}",
)
"""Commands with a missing path (`none`), a folder of another kind (`other`), or a wrong value."""
COUNT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
report = sys.argv.pop(1)
from cli import main
try:
    main()
finally:
    open(report, "w").write("\\n".join(sys.modules))
"""


def seconds_of(words: list[str], root: Path, rounds: int) -> tuple[float, int]:
    """Return a command's median time and its exit status."""
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, root / "cli.py", *words], cwd=root, capture_output=True, check=False
        )
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), done.returncode


def modules_of(words: list[str], root: Path, folder: Path) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    report = folder / "modules"
    subprocess.run(
        [sys.executable, "-c", COUNT, root, report, *words],
        cwd=root,
        capture_output=True,
        check=False,
    )
    return set(report.read_text().split())


def figures_of(
    kind: str, text: str, limit: float, root: Path, folder: Path, rounds: int
) -> dict[str, Any]:
    """Return one row of the table."""
    words = text.format(none=folder / "none", new=folder / "new", other=folder / "other").split()
    seconds, status = seconds_of(words, root, rounds)
    modules = modules_of(words, root, folder)
    return {
        "what": kind,
        "command": text,
        "seconds": round(seconds, 3),
        "limit": limit,
        "status": status,
        "modules": len(modules),
        "heavy": [name for name in HEAVY if name in modules],
    }


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--root",
    default=Path(__file__).parent.parent,
    type=click.Path(exists=True, path_type=Path),
    help="Project to measure.",
)
@click.option("--only", default="", help="Only commands that begin with these words.")
@json_option
def main(rounds: int, root: Path, only: str, json_path: Path | None) -> None:
    """Measure and print."""
    root = root.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "other").mkdir()
        (folder / "other" / "notes.txt").write_text("not a cache, and not a run\n")
        calls = [("help", f"{words} --help".strip(), HELP_LIMIT) for words in COMMANDS]
        calls += [("wrong input", words, WRONG_LIMIT) for words in WRONG]
        figures = [
            figures_of(*call, root, folder, rounds) for call in calls if call[1].startswith(only)
        ]
    table = Table(title=f"Start-up: median of {rounds} runs")
    for heading in ("what", "command", "seconds", "limit", "exit status", "modules", "heavy ones"):
        table.add_column(
            heading, justify="left" if heading in ("what", "command", "heavy ones") else "right"
        )
    for row in figures:
        table.add_row(
            *(", ".join(value) if isinstance(value, list) else str(value) for value in row.values())
        )
    Console(width=150).print(table)
    write_json(json_path, figures)


if __name__ == "__main__":
    main()

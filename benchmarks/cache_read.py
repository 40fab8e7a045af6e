"""How fast whole examples are read, side by side: the limit (a copy from memory maps), the peers'
ways, this cache.

Run `python benchmarks/cache_read.py [--megabytes N] [--rounds N] [--json FILE]`. All readers give
token ids, loss mask and hidden states of the same examples in the same shuffled order; one process
each, one torch thread, page cache warm. Readers take turns, round after round; the best round
counts. `first pass` is the very first one of a process, with the opening of files and, for this
cache, the comparison of all checksums. Peak memory is what reading adds to the process, without
shared file pages."""

from __future__ import annotations

import json
import multiprocessing
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import torch
from peer_readers import READERS, make_examples, write_all
from rich.console import Console
from rich.table import Table

PASSES = 3


def measure(name: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds of the first and of the best later pass, and the memory that reading added in MB; in
    a process of its own."""
    torch.set_num_threads(1)
    order = random.Random(0).sample(range(count), count)
    before = own_memory()
    began = time.perf_counter()
    read = READERS[name](folder)
    peak, passes = 0.0, []
    for _ in range(1 + PASSES):
        for index in order:
            read(index)
        passes.append(time.perf_counter() - began)
        peak = max(peak, own_memory() - before)
        began = time.perf_counter()
    return {"first": passes[0], "best": min(passes[1:]), "memory": peak}


def own_memory() -> float:
    """Megabytes that this process alone holds: its anonymous memory, without mapped files."""
    status = Path("/proc/self/status").read_text()
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))
        / 1024
    )


def figures_of(rows: dict[str, dict[str, float]], total: int) -> list[dict[str, Any]]:
    """One object a reader: speeds, their ratios to the limit of this run, memory."""
    limit = next(iter(rows.values()))
    return [
        {
            "reader": name,
            "gigabytes_per_second": round(total / row["best"] / 1e9, 2),
            "ratio_to_limit": round(limit["best"] / row["best"], 3),
            "first_pass_gigabytes_per_second": round(total / row["first"] / 1e9, 2),
            "memory_megabytes": round(row["memory"]),
        }
        for name, row in rows.items()
    ]


@click.command(help=__doc__)
@click.option("--megabytes", default=1000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(megabytes: int, rounds: int, json_path: Path | None) -> None:
    """Measure and print."""
    examples = make_examples(megabytes)
    count, total = (
        len(examples),
        sum(example.hidden_states[-1].nbytes + 5 * len(example) for example in examples),
    )
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), examples)
        for _ in range(rounds):
            for name in READERS:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    row = process.submit(measure, name, Path(folder), count).result()
                rows[name] = {
                    key: min(value, rows.get(name, row)[key]) for key, value in row.items()
                }
    figures = figures_of(rows, total)
    table = Table(title=f"Reading {total / 1e6:.0f} MB, {count} whole examples, shuffled")
    for heading in figures[0]:
        table.add_column(
            heading.replace("_", " "), justify="left" if heading == "reader" else "right"
        )
    for figure in figures:
        table.add_row(*map(str, figure.values()))
    Console(width=130).print(table)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

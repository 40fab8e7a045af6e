"""Compare readers of whole examples: memory maps (the limit), those of peers, and this cache.

Run `python benchmarks/cache_read.py [--megabytes N] [--rounds N] [--json FILE]`. All readers return
token ids, loss mask and hidden states of the same examples in the same shuffled order; each in a
process of its own, with one torch thread and a warm page cache. Readers alternate, and the best
round counts. `first pass` is the first one of a process: it includes opening the files and, for
this cache, comparing all checksums. Peak memory is what reading adds to the process, without shared
file pages.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from output import json_option, write_json
from peer_readers import READERS, make_examples, write_all
from processes import anonymous_megabytes, in_process
from rich.console import Console
from rich.table import Table

PASSES = 3


def measure(name: str, folder: Path, count: int) -> dict[str, float]:
    """Return the seconds of the first and the best later pass, and the added memory in MB."""
    torch.set_num_threads(1)
    order = random.Random(0).sample(range(count), count)
    before = anonymous_megabytes()
    began = time.perf_counter()
    read = READERS[name](folder)
    peak, passes = 0.0, []
    for _ in range(1 + PASSES):
        for index in order:
            read(index)
        passes.append(time.perf_counter() - began)
        peak = max(peak, anonymous_megabytes() - before)
        began = time.perf_counter()
    return {"first": passes[0], "best": min(passes[1:]), "memory": peak}


def figures_of(rows: dict[str, dict[str, float]], total: int) -> list[dict[str, Any]]:
    """Return one object per reader: speeds, their ratios to the limit, memory."""
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
@json_option
def main(megabytes: int, rounds: int, json_path: Path | None) -> None:
    """Measure and print."""
    examples = make_examples(megabytes)
    count = len(examples)
    total = sum(example.hidden_states[-1].nbytes + 5 * len(example) for example in examples)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), examples)
        for _ in range(rounds):
            for name in READERS:
                row = in_process(measure, name, Path(folder), count)
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
    write_json(json_path, figures)


if __name__ == "__main__":
    main()

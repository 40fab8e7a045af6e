"""Measure the time and memory to open a cache of many examples.

Run `python benchmarks/cache_open.py [--examples N] [--json FILE]`. Manifest and journal are
synthetic, without shards. Each opening is a process of its own; importing is counted separately,
and the peak is that of the whole process. The limit is reading and parsing the same journal with
`json` alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from output import json_option, write_json
from rich.console import Console
from rich.table import Table

from cache import Manifest
from cache.journal import begin_journal
from cache.names import MANIFEST_NAME
from cache.shard.record import ShardRecord

SHARD_EXAMPLES = 140

OPEN = """
import resource, sys, time
began = time.perf_counter()
from cache import open_cache
imported = time.perf_counter()
cache = open_cache(sys.argv[1])
assert len(cache.lengths) == len(cache.row_ids) == len(cache)
opened = time.perf_counter()
"""
PARSE = """
import resource, sys, time
began = time.perf_counter()
import json
imported = time.perf_counter()
records = [json.loads(line) for line in open(sys.argv[1] + "/journal.jsonl", "rb")]
opened = time.perf_counter()
"""
REPORT = """
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(imported - began, opened - imported, peak)
"""


def write_synthetic(root: Path, examples: int) -> None:
    """Write a manifest and a journal of shards that do not exist; opening must not read them."""
    rng = np.random.default_rng(0)
    counts = [min(SHARD_EXAMPLES, examples - first) for first in range(0, examples, SHARD_EXAMPLES)]
    lengths = [rng.integers(100, 900, count) for count in counts]
    tokens = int(sum(part.sum() for part in lengths))
    manifest = Manifest(
        "zarr", (-1,), ("bf16",), 1536, 151_936, 0, len(counts), examples, tokens, 65_536,
        {"codec": {"-1": "bf16"}}, {}, (),
    )  # fmt: skip
    root.mkdir()
    manifest.write(root)
    begin_journal(root, manifest)
    with (root / "journal.jsonl").open("ab") as journal:
        first = 0
        for shard, part in enumerate(lengths):
            files = {
                f"shards/{shard:06d}.zarr/array{number}": (10**6, "0" * 32) for number in range(16)
            }
            row_ids = [str(row) for row in range(first, first + len(part))]
            checksums = rng.integers(0, 1 << 63, len(part)).astype(np.uint64)
            record = ShardRecord(
                shard=shard,
                files=files,
                digest="0" * 64,
                row_ids=row_ids,
                text_bytes=10**5,
                lengths=part.astype(np.int64),
                stored=part.astype(np.int64),
                prefix_numbers=np.zeros(0, np.int64),
                prefixes=np.full(len(part), -1),
                checksums=checksums,
                state_bytes={"-1": 10**6},
            )
            journal.write(record.line())
            first += len(part)
    assert (root / MANIFEST_NAME).is_file()


@click.command(help=__doc__)
@click.option("--examples", default=1_000_000, show_default=True)
@json_option
def main(examples: int, json_path: Path | None) -> None:
    """Measure and print."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "cache"
        write_synthetic(root, examples)
        for name, program in (("open_cache", OPEN), ("json alone", PARSE)):
            runs = [
                subprocess.run(
                    [sys.executable, "-c", program + REPORT, root],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                for _ in range(3)
            ]
            importing, opening, peak = (
                min(map(float, column))
                for column in zip(*(run.stdout.split() for run in runs), strict=True)
            )
            figures.append(
                {
                    "what": name,
                    "import_seconds": round(importing, 2),
                    "seconds": round(opening, 2),
                    "peak_megabytes": round(peak),
                }
            )
        size = (root / "journal.jsonl").stat().st_size
    table = Table(
        title=f"Opening a cache of {examples:,} examples (journal of {size / 1e6:.0f} MB)"
    )
    for heading in figures[0]:
        table.add_column(
            heading.replace("_", " "), justify="left" if heading == "what" else "right"
        )
    for figure in figures:
        table.add_row(*map(str, figure.values()))
    Console().print(table)
    write_json(json_path, figures)


if __name__ == "__main__":
    main()

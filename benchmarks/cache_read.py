"""How fast whole examples are read from a cache, beside the limit: a copy from a memory map of the same bytes.

Run `python benchmarks/cache_read.py [--megabytes N] [--json FILE]`. All readers take the same examples in the same shuffled
order, one process, page cache warm, best of three passes; figures are ratios to the memory map of the same run.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table

from cache import Example, Manifest, open_cache, write_cache
from cache.formats import FORMAT_NAMES

HIDDEN_SIZE = 896
SHARD_EXAMPLES = 200


def make_examples(megabytes: int) -> list[Example]:
    """Random examples of 100 to 600 tokens, `megabytes` MB of bfloat16 in all."""
    rng = np.random.default_rng(0)
    examples: list[Example] = []
    left = megabytes * 1_000_000
    while left > 0:
        tokens = int(rng.integers(100, 600))
        bits = rng.integers(0, 1 << 15, (tokens, HIDDEN_SIZE), np.uint16)
        ids = rng.integers(0, 1000, tokens, np.int32)
        examples.append(Example(str(len(examples)), ids, ids > 500, {-1: bits.view(ml_dtypes.bfloat16)}))
        left -= bits.nbytes
    return examples


def write(root: Path, examples: list[Example], container: str) -> None:
    """Write the examples as a cache."""
    shards = [examples[i : i + SHARD_EXAMPLES] for i in range(0, len(examples), SHARD_EXAMPLES)]
    manifest = Manifest(
        container, "bf16", (-1,), HIDDEN_SIZE, 1000, 0, len(shards), len(examples), sum(map(len, examples)), 65536, {}, {}, ()
    )  # fmt: skip
    (root.parent / "attachments").mkdir(exist_ok=True)
    with write_cache(root, manifest, root.parent / "attachments") as writer:
        for number, shard in enumerate(shards):
            writer.publish(number, shard)


def seconds_of(read: Callable[[int], object], order: list[int]) -> float:
    """The best of three passes, after one that warms the page cache and lets checksums be checked."""
    for index in order:
        read(index)
    passes = []
    for _ in range(3):
        began = time.perf_counter()
        for index in order:
            read(index)
        passes.append(time.perf_counter() - began)
    return min(passes)


@click.command(help=__doc__)
@click.option("--megabytes", default=300, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too.")
def main(megabytes: int, json_path: Path | None) -> None:
    """Measure and print."""
    examples = make_examples(megabytes)
    order = random.Random(0).sample(range(len(examples)), len(examples))
    total = sum(example.hidden_states[-1].nbytes for example in examples)
    with tempfile.TemporaryDirectory() as folder:
        flat = np.concatenate([example.hidden_states[-1].view(np.uint16) for example in examples])
        np.save(Path(folder) / "flat.npy", flat)
        mapped = np.load(Path(folder) / "flat.npy", mmap_mode="r")
        ends = np.cumsum([0, *map(len, examples)])
        rows = {"copy from a memory map": seconds_of(lambda i: np.array(mapped[ends[i] : ends[i + 1]]), order)}
        for container in FORMAT_NAMES:
            write(Path(folder) / container, examples, container)
            store = open_cache(Path(folder) / container)
            rows[f"this cache, {container}"] = seconds_of(store.example, order)
    limit = rows["copy from a memory map"]
    figures = [
        {"reader": name, "gigabytes_per_second": round(total / spent / 1e9, 2), "ratio_to_memory_map": round(limit / spent, 3)}
        for name, spent in rows.items()
    ]
    table = Table(title=f"Reading {total / 1e6:.0f} MB of whole examples, shuffled")
    for heading in ("reader", "GB/s", "ratio to memory map"):
        table.add_column(heading, justify="left" if heading == "reader" else "right")
    for figure in figures:
        table.add_row(*map(str, figure.values()))
    Console().print(table)
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

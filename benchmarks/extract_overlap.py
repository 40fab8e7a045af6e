"""Measure the gain of writing a shard while the teacher computes the next one, and the memory.

Run `python benchmarks/extract_overlap.py [--limit N] [--rounds N] [--json FILE]`. The embedded
teacher extracts by turns with the writer's thread, and with every shard written before the next one
begins; each extract is a process of its own. A quarter of the data set shows whether memory grows
with its size.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from pathlib import Path

import click
from output import json_option, write_json
from processes import in_process
from rich.console import Console
from rich.table import Table

from cache.containers import CONTAINER_NAMES
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.engines import local
from pipeline.extract.prepare import prepare
from pipeline.extract.publisher import BackgroundPublisher
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.shard_states import ShardStates

LAYERS = (-1, 0, 1, 2, 3, 4)


class OneAfterTheOther(BackgroundPublisher):
    """Publisher that waits until each shard is written."""

    def publish(self, shard: int, states: ShardStates) -> None:
        super().publish(shard, states)
        self.flush()


def measure(overlap: bool, container: str, limit: int) -> dict[str, float]:
    """Return the seconds of one extract, and the peak memory of its process."""
    if not overlap:
        local.BackgroundPublisher = OneAfterTheOther
    with tempfile.TemporaryDirectory() as folder:
        settings = ExtractSettings(
            teacher=EMBEDDED_TEACHER,
            dataset=EMBEDDED_DATASET,
            cache=Path(folder) / "c",
            format=container,
            layers=LAYERS,
            limit=limit,
            shard_tokens=8192,
        )
        result = extract(prepare(settings))
    return {
        "seconds": result.seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


@click.command(help=__doc__)
@click.option("--limit", default=1200, show_default=True, help="Rows.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@json_option
def main(limit: int, rounds: int, json_path: Path | None) -> None:
    """Measure and print."""
    figures = []
    for container in CONTAINER_NAMES:
        runs: dict[str, list[dict[str, float]]] = {
            "overlap": [],
            "one after the other": [],
            "overlap, a quarter": [],
        }
        for _ in range(rounds):
            runs["one after the other"].append(in_process(measure, False, container, limit))
            runs["overlap"].append(in_process(measure, True, container, limit))
            runs["overlap, a quarter"].append(in_process(measure, True, container, limit // 4))
        sequential = statistics.median(run["seconds"] for run in runs["one after the other"])
        for way, measured in runs.items():
            seconds = statistics.median(run["seconds"] for run in measured)
            figures.append(
                {
                    "format": container,
                    "writes": way,
                    "seconds": round(seconds, 2),
                    "of one after the other": round(seconds / sequential, 2),
                    "peak megabytes": round(max(run["megabytes"] for run in measured)),
                    "rounds": [round(run["seconds"], 2) for run in measured],
                }
            )
    table = Table(title=f"Extracting {limit} rows, {len(LAYERS)} layers")
    for heading in figures[0]:
        table.add_column(heading, justify="left" if heading in ("format", "writes") else "right")
    for figure in figures:
        table.add_row(*map(str, figure.values()))
    Console().print(table)
    write_json(json_path, figures)


if __name__ == "__main__":
    main()

"""What it saves to write a shard while the teacher computes the next one, and that memory does not
grow with the data set.

Run `python benchmarks/extract_overlap.py [--limit N] [--json FILE]`. The embedded teacher, by turns
with the writer's thread and with every shard written before the next one is begun; one process
each. Beside them the same with a data set of a quarter."""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
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
    """Waits for each shard at once."""

    def publish(self, shard: int, states: ShardStates) -> None:
        super().publish(shard, states)
        self.flush()


def measure(overlap: bool, container: str, limit: int) -> dict[str, float]:
    """Seconds of one extract, and the most memory that its process held."""
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


def in_a_process(*arguments: Any) -> dict[str, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


@click.command(help=__doc__)
@click.option("--limit", default=1200, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
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
            runs["one after the other"].append(in_a_process(False, container, limit))
            runs["overlap"].append(in_a_process(True, container, limit))
            runs["overlap, a quarter"].append(in_a_process(True, container, limit // 4))
        plain = statistics.median(run["seconds"] for run in runs["one after the other"])
        for how, measured in runs.items():
            seconds = statistics.median(run["seconds"] for run in measured)
            figures.append(
                {
                    "format": container,
                    "writes": how,
                    "seconds": round(seconds, 2),
                    "of one after the other": round(seconds / plain, 2),
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
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

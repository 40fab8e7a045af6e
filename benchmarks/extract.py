"""Compare ways to compute a teacher's hidden states: the published code's, and this project's.

Run `python benchmarks/extract.py [--teacher T --dataset D] [--limit N] [--rounds N] [--way W …]
[--json FILE]`. All read the same rows with the same weights in the same dtype. The ways:

- published: the whole model with its LM head, the states of all layers, one example at a time, one
  file per example
- body: the body without LM head, the last layer only, one example at a time, one file per example
- packed: the batches and shared prefixes of `extract`, nothing written (the limit)
- extract: the complete extract: encoded, written, added to the journal
- extract, a tenth: the same with a tenth of the rows; shows what grows with the data set

Each measurement is a process of its own; the ways alternate, all in the same number of rounds, and
are compared by medians. Weights are loaded and rows tokenised before the clock starts. Tokens of
shared prefixes count once per example. Memory is the peak minus that before the first row.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from output import json_option, write_json
from plain_teacher import load_plain_teacher
from processes import anonymous_megabytes, in_process
from rich.console import Console
from rich.table import Table
from rounds import alternate, medians

from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.engines.local import LocalEngine
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.worker import ShardWorker


def one_at_a_time(with_lm_head: bool) -> Callable[[ExtractPlan], Callable[[], None]]:
    """Read one example per forward pass, and write one file per example."""

    def prepare_way(plan: ExtractPlan) -> Callable[[], None]:
        device = choose_device(plan.settings.device)
        model = load_plain_teacher(
            plan.source, device, dtype=plan.settings.dtype, with_lm_head=with_lm_head
        )
        folder = plan.settings.cache
        folder.mkdir(parents=True)

        @torch.inference_mode()
        def run() -> None:
            for number, example in enumerate(plan.dataset.examples):
                ids = torch.from_numpy(example.input_ids.astype("int64"))[None].to(device)
                if with_lm_head:
                    states = model(ids, output_hidden_states=True).hidden_states[-1]
                else:
                    states = model(ids, use_cache=False).last_hidden_state
                torch.save(states[0].cpu(), folder / f"{number}.pt")

        return run

    return prepare_way


def packed(plan: ExtractPlan) -> Callable[[], None]:
    """Compute all shards, and discard them."""
    worker = ShardWorker(plan.work())
    worker.load()

    def run() -> None:
        for shard in range(len(plan.shards)):
            worker.read(shard, ())

    return run


def complete_extract(plan: ExtractPlan) -> Callable[[], None]:
    """Run the complete extract."""
    engine = LocalEngine(plan)
    engine.load()

    def run() -> None:
        extract(plan, engine=engine)

    return run


WAYS: dict[str, Callable[[ExtractPlan], Callable[[], None]]] = {
    "published": one_at_a_time(with_lm_head=True),
    "body": one_at_a_time(with_lm_head=False),
    "packed": packed,
    "extract": complete_extract,
    "extract, a tenth": complete_extract,
}


def measure(way: str, settings: ExtractSettings) -> dict[str, float]:
    """Return the seconds and memory of one way in this process."""
    with tempfile.TemporaryDirectory() as folder:
        plan = prepare(replace(settings, cache=Path(folder) / "c"))
        run = WAYS[way](plan)
        before, peak, ended = anonymous_megabytes(), [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                peak[0] = max(peak[0], anonymous_megabytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
    return {"seconds": seconds, "tokens": plan.manifest.tokens, "megabytes": peak[0] - before}


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option("--dataset", default=EMBEDDED_DATASET, help="[default: embedded]")
@click.option("--limit", default=600, show_default=True, help="Rows.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--way",
    "ways",
    type=click.Choice(list(WAYS)),
    multiple=True,
    help="Only these ways.  [default: all]",
)
@click.option("--shard-tokens", default=65536, show_default=True, help="Tokens of a shard.")
@click.option("--device", default="auto", show_default=True)
@json_option
def main(
    teacher: str,
    dataset: str,
    limit: int,
    rounds: int,
    ways: tuple[str, ...],
    json_path: Path | None,
    **options: Any,
) -> None:
    """Measure and print."""
    settings = ExtractSettings(
        teacher=teacher, dataset=dataset, cache=Path("unused"), limit=limit, **options
    )
    tenth = replace(settings, limit=max(1, limit // 10))
    measured = alternate(
        {
            way: partial(in_process, measure, way, tenth if way.endswith("tenth") else settings)
            for way in ways or WAYS
        },
        rounds,
    )
    figures: list[dict[str, Any]] = []
    for way, own in measured.items():
        figure = {"way": way, **medians(own), "rounds": own, "tokens": own[0]["tokens"]}
        figure["tokens_per_second"] = figure["tokens"] / figure["seconds"]
        figures.append(figure)
    speeds = {figure["way"]: figure["tokens_per_second"] for figure in figures}
    for figure in figures:
        for other in {"published", "packed"} & {*speeds}:
            figure[f"of_{other}"] = figure["tokens_per_second"] / speeds[other]
    title = f"{limit} rows of {Path(dataset).name}, teacher {Path(teacher).name}"
    Console(width=130).print(table_of(figures, title))
    write_json(json_path, figures)


def table_of(figures: list[dict[str, Any]], title: str) -> Table:
    """Return the figures of all ways as a table."""
    table = Table(title=title)
    headings = ("tokens", "seconds", "tokens/s", "of published", "of packed", "memory, MB")
    table.add_column("way")
    for heading in headings:
        table.add_column(heading, justify="right")
    for figure in figures:
        shares = (figure.get("of_published"), figure.get("of_packed"))
        table.add_row(
            figure["way"],
            f"{figure['tokens']:,}",
            f"{figure['seconds']:.2f}",
            f"{figure['tokens_per_second']:,.0f}",
            *("" if share is None else f"{share:.2f}" for share in shares),
            f"{figure['megabytes']:,.0f}",
        )
    return table


if __name__ == "__main__":
    main()

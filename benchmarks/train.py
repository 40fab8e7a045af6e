"""Compare ways to train the same student on the same rows.

Run `python benchmarks/train.py [--teacher T --dataset D] [--limit N] [--student S] [--rounds N]
[--way W …] [--json FILE]`.

- published: as the published code, with the whole teacher, its LM head and all layers' states live;
  one example per step, whole logits
- online: this project's trainer and batches, with the teacher's body live
- cache, batch 1: this trainer from a bf16 cache, one example per step as published
- cache bf16, cache klt: batches of `--batch-tokens`, from a cache
- RAM: the same batches, already in memory (the limit)
- …, vocab dataset: with a head over the tokens that occur in the rows
- …, bf16: in automatic mixed precision

Each measurement is a process of its own. The ways alternate, all in the same number of rounds, and
are compared by medians; the JSON file has every round. Tokens are counted from the end of the first
step to the end of the last. Memory is the process's peak. The job is 15 epochs at the measured
speed, including the extract for ways with a cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from output import json_option, write_json
from processes import in_process
from rich.console import Console
from rich.table import Table
from rounds import Figures, alternate, medians
from train_ways import WAYS, TrainOptions, measure

from cache import open_cache
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings

EPOCHS = 15


CODECS: dict[str, dict[str, Any]] = {
    "bf16": {},
    "klt": {"codec": ("klt",), "fidelity": ("kl=0.01",)},
}


def extract_rows(codec: str, folder: Path, settings: ExtractSettings) -> Figures:
    """Extract the rows, keep the cache of the first round; return tokens per second."""
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache" if (folder / codec).exists() else folder / codec
        result = extract(prepare(replace(settings, cache=cache, **CODECS[codec])))
    return {"tokens_per_second": float(result.tokens_per_second or 0)}


def job_seconds(way: str, speed: float, tokens: int, extract_speeds: Figures) -> float:
    """Return the seconds of all epochs, including the extract if the way has a cache."""
    extracting = 0.0 if WAYS[way].live else tokens / extract_speeds[WAYS[way].cache]
    return extracting + EPOCHS * tokens / speed


def compare(
    measured: Mapping[str, Sequence[Figures]], tokens: int, extract_speeds: Figures
) -> list[dict[str, Any]]:
    """Return the medians of each way, its job, and its ratios to RAM and the published way."""
    figures = {way: medians(rounds) for way, rounds in measured.items()}
    jobs = {
        way: job_seconds(way, own["tokens_per_second"], tokens, extract_speeds)
        for way, own in figures.items()
    }
    ram = figures["RAM"]["tokens_per_second"] if "RAM" in figures else None
    published = jobs.get("published")
    return [
        {
            "way": way,
            **own,
            "of_ram": own["tokens_per_second"] / ram if ram else None,
            "job_hours": jobs[way] / 3600,
            "job_times_faster": published / jobs[way] if published else None,
            "rounds": list(measured[way]),
        }
        for way, own in figures.items()
    ]


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option("--dataset", default=EMBEDDED_DATASET, help="[default: embedded]")
@click.option("--limit", default=200, show_default=True, help="Rows.")
@click.option("--student", default="tiny", show_default=True)
@click.option(
    "--steps", default=20, show_default=True, help="Steps of ways with one example per step."
)
@click.option("--passes", default=1, show_default=True, help="Passes over the rows, other ways.")
@click.option("--batch-tokens", default=4096, show_default=True)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--way",
    "ways",
    multiple=True,
    type=click.Choice(list(WAYS)),
    help="Only this way; may be repeated.",
)
@json_option
def main(
    dataset: str,
    limit: int,
    rounds: int,
    ways: tuple[str, ...],
    json_path: Path | None,
    **options: Any,
) -> None:
    """Measure and print."""
    own = TrainOptions(**options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = ExtractSettings(
            teacher=own.teacher, dataset=dataset, cache=folder, limit=limit, device=own.device
        )
        extracts = alternate(
            {codec: partial(in_process, extract_rows, codec, folder, settings) for codec in CODECS},
            rounds,
        )
        with open_cache(folder / "bf16") as cache:
            tokens = int(cache.lengths.sum())
        measured = alternate(
            {way: partial(in_process, measure, way, folder, own) for way in ways or WAYS}, rounds
        )
    speeds = {codec: medians(own)["tokens_per_second"] for codec, own in extracts.items()}
    figures = compare(measured, tokens, speeds)
    title = (
        f"{tokens:,} tokens of {Path(dataset).name}, teacher {Path(own.teacher).name},"
        f" student {own.student}, median of {rounds} rounds"
    )
    Console(width=130).print(table_of(figures, title))
    content = {"extract_tokens_per_second": speeds, "extract_rounds": extracts, "ways": figures}
    write_json(json_path, content)


def table_of(figures: Sequence[dict[str, Any]], title: str) -> Table:
    """Return the figures of all ways as a table."""
    table = Table(title=title)
    headings = ("tokens/s", "of RAM", "loader wait", "memory, MB", f"{EPOCHS} epochs, h", "speedup")
    table.add_column("way")
    for heading in headings:
        table.add_column(heading, justify="right")
    for figure in figures:
        table.add_row(
            figure["way"],
            f"{figure['tokens_per_second']:,.1f}",
            _number(figure["of_ram"]),
            f"{figure['loader_wait_share']:.2%}",
            f"{figure['megabytes']:,.0f}",
            f"{figure['job_hours']:.3f}",
            _number(figure["job_times_faster"]),
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()

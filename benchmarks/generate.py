"""Compare ways to generate an answer: students with their teacher, the teacher, and GPT-Neo.

Run `python benchmarks/generate.py [--teacher T --dataset D] [--student S] [--new-tokens N]
[--rounds N] [--published-every N] [--json FILE]`.

- GPT-Neo alone: transformers' own, of the student's shape, after one token (the limit)
- prompt: the teacher reads the prompt once; GPT-Neo generates with cross-attention to its states
- prompt, cached: the prompt's states are in a cache, no teacher is loaded
- sequence: the teacher reads every generated token
- its student alone: as `sequence`, with states that need no computation
- teacher alone: transformers' `generate`
- published: as the published code, teacher (with its LM head, all layers kept) and student
  recompute everything for each token; only every N-th length is run, and the time is extrapolated

All but the last use `generate` with key-value caches, greedily, for exactly N tokens after one
prompt. Students have random weights, which does not change the speed. Loading is not counted,
reading the prompt is. The ways alternate, all in the same number of rounds, and are compared by
medians.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from generate_ways import timers
from output import json_option, write_json
from rich.console import Console
from rich.table import Table
from rounds import alternate

from cache import open_cache
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.shapes import SIZES
from pipeline.teacher.source import find_teacher


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option(
    "--dataset", default=EMBEDDED_DATASET, help="Its first row is the prompt.  [default: embedded]"
)
@click.option("--student", type=click.Choice(list(SIZES)), default="tiny", show_default=True)
@click.option("--new-tokens", default=256, show_default=True)
@click.option(
    "--published-every",
    default=16,
    show_default=True,
    help="Run the published way only for every N-th token.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--device", "device_name", default="auto", show_default=True)
@json_option
def main(
    teacher: str,
    dataset: str,
    student: str,
    new_tokens: int,
    published_every: int,
    rounds: int,
    device_name: str,
    json_path: Path | None,
) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = ExtractSettings(
            teacher=teacher,
            dataset=dataset,
            cache=Path(folder) / "cache",
            condition="prompt",
            limit=1,
            device=device_name,
        )
        extract(prepare(settings))
        with open_cache(settings.cache) as cache:
            ways = timers(
                cache,
                find_teacher(teacher),
                student,
                choose_device(device_name),
                new_tokens,
                published_every,
            )
            measured = alternate(ways, rounds)
            prompt_tokens = len(cache[0])
    figures = figures_of(measured, new_tokens)
    seconds = {figure["way"]: figure["seconds"] for figure in figures}
    both_alone = seconds["teacher alone"] + seconds["its student alone"]
    ratios = {
        "published_over_sequence": seconds["published"] / seconds["sequence"],
        "sequence_over_both_alone": seconds["sequence"] / both_alone,
    }
    title = (
        f"{new_tokens} tokens after a prompt of {prompt_tokens}, teacher {Path(teacher).name},"
        f" student {student}"
    )
    console = Console(width=110)
    console.print(table_of(figures, title))
    speedup, overhead = ratios.values()
    console.print(f"sequence: {speedup:.1f} times as fast as the published way")
    console.print(f"sequence: {overhead:.2f} times the sum of teacher alone and student alone")
    counts = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    write_json(json_path, {**counts, "ways": figures, **ratios})


def figures_of(measured: dict[str, list[float]], new_tokens: int) -> list[dict[str, Any]]:
    """Return the median seconds and the speed of each way, relative to GPT-Neo alone."""
    seconds = {name: statistics.median(times) for name, times in measured.items()}
    return [
        {
            "way": name,
            "seconds": median,
            "tokens_per_second": new_tokens / median,
            "times_gpt_neo_alone": median / seconds["GPT-Neo alone"],
            "round_seconds": measured[name],
        }
        for name, median in seconds.items()
    ]


def table_of(figures: list[dict[str, Any]], title: str) -> Table:
    """Return the figures of all ways as a table."""
    table = Table(title=title)
    for heading in ("way", "seconds", "tokens/s", "times GPT-Neo alone"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures:
        table.add_row(
            figure["way"],
            f"{figure['seconds']:.2f}",
            f"{figure['tokens_per_second']:.1f}",
            f"{figure['times_gpt_neo_alone']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()

"""Compare ways to generate an answer: students with their teacher, the teacher, and the decoder.

Run `python benchmarks/generate.py [--teacher T --dataset D] [--student S] [--new-tokens N]
[--rounds N] [--published-every N] [--joins-only] [--json FILE]`. S is a size, or a pretrained
decoder as folder or GGUF file.

- decoder alone: the student's, by transformers alone, after one token (the limit)
- decoder alone, after the prompt: the same after the prompt as text
- prompt: the teacher reads the prompt once; the student, with cross-attention to its states, reads
  no text
- text and J: the teacher reads the prompt once; the student reads it as text, too, joined with the
  states by J; compared with the decoder after the prompt
- prompt, cached: the prompt's states are in a cache, no teacher is loaded
- sequence: the teacher reads every generated token
- its student alone: as `sequence`, with states that need no computation
- teacher alone: transformers' `generate`
- published: as the published code, teacher (with its LM head, all layers kept) and student
  recompute everything for each token; only every N-th length is run, and the time is extrapolated

All but the last use `generate` with key-value caches, greedily, for exactly N tokens after one
prompt. Students are untrained, which does not change the speed. Loading is not counted, reading the
prompt is. The ways alternate, all in the same number of rounds, and are compared by
medians.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from generate_joins import AFTER_PROMPT, JOINED, reference_of
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
from pipeline.teacher.source import find_teacher


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option(
    "--dataset", default=EMBEDDED_DATASET, help="Its first row is the prompt.  [default: embedded]"
)
@click.option("--student", default="tiny", show_default=True, help="Size, folder or GGUF file.")
@click.option("--new-tokens", default=256, show_default=True)
@click.option(
    "--published-every",
    default=16,
    show_default=True,
    help="Run the published way only for every N-th token.",
)
@click.option("--joins-only", is_flag=True, help="Leave out sequence, the teacher and published.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--device", "device_name", default="auto", show_default=True)
@json_option
def main(
    teacher: str,
    dataset: str,
    student: str,
    new_tokens: int,
    published_every: int,
    joins_only: bool,
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
                joins_only=joins_only,
            )
            measured = alternate(ways, rounds)
            prompt_tokens = len(cache[0])
    figures = figures_of(measured, new_tokens)
    ratios = {} if joins_only else sequence_ratios(figures)
    title = (
        f"{new_tokens} tokens after a prompt of {prompt_tokens}, teacher {Path(teacher).name},"
        f" student {Path(student).name}"
    )
    console = Console(width=110)
    console.print(table_of(figures, title))
    if ratios:
        speedup, overhead = ratios.values()
        console.print(f"sequence: {speedup:.1f} times as fast as the published way")
        console.print(f"sequence: {overhead:.2f} times the sum of teacher alone and student alone")
    counts = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    write_json(json_path, {**counts, "ways": figures, **ratios})


def figures_of(measured: dict[str, list[float]], new_tokens: int) -> list[dict[str, Any]]:
    """Return the median seconds and the speed of each way, relative to the decoder alone."""
    seconds = {name: statistics.median(times) for name, times in measured.items()}
    return [
        {
            "way": name,
            "seconds": median,
            "tokens_per_second": new_tokens / median,
            "times_decoder_alone": median / seconds[reference_of(name)],
            "reads_text": name in JOINED or name == AFTER_PROMPT,
            "round_seconds": measured[name],
        }
        for name, median in seconds.items()
    ]


def sequence_ratios(figures: list[dict[str, Any]]) -> dict[str, float]:
    """Return the time of `sequence` relative to the published way, and to its parts alone."""
    seconds = {figure["way"]: figure["seconds"] for figure in figures}
    both_alone = seconds["teacher alone"] + seconds["its student alone"]
    return {
        "published_over_sequence": seconds["published"] / seconds["sequence"],
        "sequence_over_both_alone": seconds["sequence"] / both_alone,
    }


def table_of(figures: list[dict[str, Any]], title: str) -> Table:
    """Return the figures of all ways as a table."""
    table = Table(title=title)
    for heading in ("way", "seconds", "tokens/s", "times the decoder alone"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures:
        table.add_row(
            figure["way"],
            f"{figure['seconds']:.2f}",
            f"{figure['tokens_per_second']:.1f}",
            f"{figure['times_decoder_alone']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()

"""The benchmarks at a size for two CPU cores, and one table of their ratios to peers and limits.

Run `python benchmarks/all.py [--only NAME …] [--folder F] [--page FILE]`. Each benchmark is a
process of its own, one after the other; its own table and figures lie in the folder, as NAME.txt
and NAME.json. A page (docs/BENCHMARKS.md) gets the table between
its marks. A benchmark that fails is told of, and keeps none of the others from being run. Not here:
`teacher_pass.py` and `student_loss.py`, which compare settings and not peers, and `soak.py`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


@dataclass(frozen=True)
class Ratio:
    """One line of the table: what is compared with what, and how it came out."""

    what: str
    beside: str
    ratio: float
    better: str


def row(figures: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    """The figures of one way."""
    return next(figure for figure in figures if figure[key] == value)


def of_reading(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Speeds as shares of the memory map's."""
    limit = figures[0]["reader"]
    return [
        Ratio(
            f"read shuffled examples: {figure['reader']}", limit, figure["ratio_to_limit"], "more"
        )
        for figure in figures[1:]
    ]


def of_opening(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Seconds beside parsing the journal."""
    cache, alone = (row(figures, "what", what)["seconds"] for what in ("open_cache", "json alone"))
    return [
        Ratio(
            "open a cache of many examples: seconds",
            "parsing its journal with json",
            cache / alone,
            "less",
        )
    ]


def of_codecs(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Bits of bfloat16's, and speed of decoding as a share of a copy."""
    named = [figure for figure in figures[1:] if figure["codec"].startswith(("int8", "klt"))]
    bits = [
        Ratio(f"{each['codec']}: bits a value", "bf16", each["bits a value"] / 16, "less")
        for each in named
    ]
    speeds = [
        Ratio(
            f"{each['codec']}: decode", "a copy in memory", each["decode, share of limit"], "more"
        )
        for each in named
    ]
    return bits + speeds


def of_extraction(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Tokens a second."""
    found = row(figures, "way", "extract")
    return [
        Ratio("extract: tokens/s", "the published way", found["of_published"], "more"),
        Ratio("extract: tokens/s", "the packed forward pass alone", found["of_packed"], "more"),
    ]


def of_overlap(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Seconds."""
    return [
        Ratio(
            f"extract, {each['format']}: seconds",
            "writing after computing",
            each["of one after the other"],
            "less",
        )
        for each in figures
        if each["writes"] == "overlap"
    ]


def of_stores(figures: dict[str, Any]) -> list[Ratio]:
    """Seconds of the other common client."""
    return [
        Ratio(f"object store, {each['what']}: speed", "s3fs", each["s3fs over obstore"], "more")
        for each in figures["clients"]
    ]


def of_training(figures: dict[str, Any]) -> list[Ratio]:
    """Tokens a second, and the whole job."""
    jobs, ram = list[Ratio](), list[Ratio]()
    for each in figures["ways"]:
        if each["job_times_faster"] and each["way"] != "published":
            jobs.append(
                Ratio(
                    f"15 epochs, extract included: {each['way']}",
                    "the published way",
                    each["job_times_faster"],
                    "more",
                )
            )
        if each["of_ram"] and each["way"] not in ("published", "RAM"):
            ram.append(Ratio(f"train: {each['way']}", "states in memory", each["of_ram"], "more"))
    return jobs + ram


def of_generation(figures: dict[str, Any]) -> list[Ratio]:
    """Seconds of writing."""
    prompt = row(figures["ways"], "way", "prompt")
    return [
        Ratio(
            "write, --condition sequence: speed",
            "the published way",
            figures["published_over_sequence"],
            "more",
        ),
        Ratio(
            "write, --condition sequence: seconds",
            "teacher + student alone",
            figures["sequence_over_both_alone"],
            "less",
        ),
        Ratio(
            "write, --condition prompt: seconds",
            "GPT-Neo alone",
            prompt["times_gpt_neo_alone"],
            "less",
        ),
    ]


def of_start_up(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Seconds of the slowest of a kind."""
    slowest = {
        kind: max(each["seconds"] for each in figures if each["what"] == kind)
        for kind in ("help", "wrong input")
    }
    limits = {each["what"]: each["limit"] for each in figures}
    return [
        Ratio(
            f"the slowest {kind}: seconds",
            f"the limit of {limits[kind]:g}",
            seconds / limits[kind],
            "less",
        )
        for kind, seconds in slowest.items()
    ]


BENCHMARKS: dict[str, tuple[tuple[str, ...], Callable[[Any], list[Ratio]]]] = {
    "start_up": ((), of_start_up),
    "cache_read": (("--megabytes", "600"), of_reading),
    "cache_open": (("--examples", "500000"), of_opening),
    "codecs": (("--tokens", "16384"), of_codecs),
    "extract": (("--limit", "400"), of_extraction),
    "extract_overlap": (("--limit", "600", "--rounds", "2"), of_overlap),
    "object_store": ((), of_stores),
    "train": (("--limit", "200"), of_training),
    "generate": (("--new-tokens", "128"), of_generation),
}
"""Of each its options, and what of its figures stands in the table."""


def run(name: str, folder: Path) -> tuple[list[Ratio], float]:
    """Run one benchmark; its lines of the table, and its seconds."""
    options, ratios = BENCHMARKS[name]
    path, began = folder / f"{name}.json", time.monotonic()
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", *options, "--json", path],
        stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONPATH": str(HERE.parent), "TQDM_DISABLE": "1"},
    )  # fmt: skip
    (folder / f"{name}.txt").write_text(done.stdout)
    return ratios(json.loads(path.read_text())), time.monotonic() - began


def as_markdown(
    lines: list[tuple[str, Ratio]], failed: list[str], seconds: dict[str, float]
) -> str:
    """The table for a page, under what it was measured with."""
    cores = f"{os.cpu_count()} cores of {platform.machine()}"
    head = (
        f"{date.today().isoformat()}, {cores}, torch {version('torch')},"
        f" {sum(seconds.values()) / 60:.0f} minutes in all."
    )
    rows = [
        f"| `{name}.py` | {each.what} | {each.beside} | **{each.ratio:.3g}** | {each.better} |"
        for name, each in lines
    ]
    table = [
        "| benchmark | quantity | compared with | ratio | better is |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join([head, "", *table, *(f"\nFailed: `{name}.py`." for name in failed)])


@click.command(help=__doc__)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list(BENCHMARKS)),
    help="Only this one; may be repeated.",
)
@click.option(
    "--folder", default="build/benchmarks", show_default=True, type=click.Path(path_type=Path)
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put the table into this page.",
)
def main(only: tuple[str, ...], folder: Path, page: Path | None) -> None:
    """Run, print, write."""
    if page is not None and not all(mark in page.read_text(encoding="utf-8") for mark in MARKS):
        raise click.BadParameter(
            f"{page}: has no marks {' and '.join(MARKS)} to put the table between"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple[str, Ratio]] = []
    failed, seconds = list[str](), dict[str, float]()
    for name in only or BENCHMARKS:
        click.echo(f"{name} …", err=True)
        try:
            ratios, seconds[name] = run(name, folder)
            lines += [(name, each) for each in ratios]
        except Exception as error:  # whatever a benchmark does
            click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
            failed.append(name)
    table = Table(title="Ratios to peers and limits")
    for heading in ("benchmark", "quantity", "compared with", "ratio", "better is"):
        table.add_column(heading, justify="right" if heading == "ratio" else "left")
    for name, each in lines:
        table.add_row(name, each.what, each.beside, f"{each.ratio:.3g}", each.better)
    Console(width=150).print(table)
    found = [{"benchmark": name, **vars(each)} for name, each in lines]
    (folder / "all.json").write_text(
        json.dumps({"ratios": found, "failed": failed, "seconds": seconds}, indent=1) + "\n"
    )
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
        _, _, after = rest.partition(MARKS[1])
        filled = f"{before}{MARKS[0]}\n\n{as_markdown(lines, failed, seconds)}\n\n{MARKS[1]}{after}"
        page.write_text(filled, encoding="utf-8")
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

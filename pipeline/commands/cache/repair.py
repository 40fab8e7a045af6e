"""`cache repair`: what is lost is extracted again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
import cloup
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from cache.places import Place
from cache.summary import published_bytes
from pipeline.commands.cache_places import cache_places
from pipeline.commands.counted import counted
from pipeline.commands.shell import command
from pipeline.extract.repair import RepairResult, RepairSettings
from pipeline.extract.repair import repair as run_repair
from pipeline.progress import progress_bar

_MOST_LINES = 20


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "What is extracted again, and from what",
    click.option("--teacher", help="The cache's teacher, where that has moved."),
    click.option("--dataset", help="The cache's data set, where that has moved."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option(
        "--skip-non-finite", is_flag=True, help="Leave out, and count, rows for which the teacher gives NaN or infinity."
    ),
    click.option(
        "--allow-other-numbers",
        is_flag=True,
        help="Accept shards whose numbers differ from the lost ones, as on another machine; the content digest changes.",
    ),
)
@command
@cache_places("cache")
def repair(cache: Place, *, as_json: bool, **options: Any) -> dict[str, Any]:
    """Verify a cache, and extract again the shards that are damaged or missing, and no others.

    Manifest and journal hold a copy of what matters in the other: where one of them is lost it is put back. The repaired cache
    has the content digest that it had.

    \b
    Examples:
      llm-modules cache repair my-cache
      llm-modules cache repair my-cache --teacher moved/Qwen2-1.5B --dataset moved/rows.jsonl
    """
    with progress_bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()) as bar:
        checking = bar.add_task("verify", total=published_bytes(cache))
        extracting = bar.add_task("extract", total=None, visible=False)
        result = run_repair(
            RepairSettings(cache, **options),
            lambda size: bar.update(checking, advance=size),
            lambda tokens, total: bar.update(extracting, advance=tokens, total=total, visible=True),
        )
    if not as_json:
        click.echo(_in_words(result))
    return asdict(result)


def _in_words(result: RepairResult) -> str:
    if not result.found:
        return f"{result.cache}: nothing to repair; content digest {result.content_digest}"
    lines = [f"found: {what}" for what in result.found[:_MOST_LINES]]
    if len(result.found) > _MOST_LINES:
        lines.append(f"… and {len(result.found) - _MOST_LINES} more; --json lists all")
    if result.restored:
        lines.append(f"written again into the journal, from the whole shards: {counted(len(result.restored), 'shard')}")
    numbers = "with the same numbers as the lost ones" if result.same_content else "with OTHER NUMBERS than the lost ones"
    if result.unknown_shards:
        numbers = f"{len(result.unknown_shards)} of them with nothing left to compare with, the others {numbers}"
    if result.shards:
        lines.append(f"extracted again: {counted(len(result.shards), 'shard')}, {counted(result.tokens, 'token')}, {numbers}")
    lines.append(f"{result.cache}: whole")
    lines.append(f"content digest {result.content_digest}")
    return "\n".join(lines)

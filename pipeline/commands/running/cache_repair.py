"""`cache repair`: repair with progress bars, and print the result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from pipeline.commands.counted import counted
from pipeline.progress import shown_progress
from pipeline.upkeep.repair import RepairResult, repair
from pipeline.upkeep.settings import RepairSettings

_MOST_LINES = 20


def repair_and_report(settings: RepairSettings, *, as_json: bool) -> dict[str, Any]:
    """Repair a cache; print the result unless `as_json`; return it.

    Raises:
        CacheError, InputError, RunError: as `repair`.
    """
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with shown_progress(*columns) as progress:
        result = repair(settings, progress)
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
        lines.append(
            f"journal lines restored from intact shards: {counted(len(result.restored), 'shard')}"
        )
    numbers = (
        "with the same numbers as the lost ones"
        if result.same_content
        else "with OTHER NUMBERS than the lost ones"
    )
    if result.unknown_shards:
        numbers = (
            f"{len(result.unknown_shards)} of them without a record to compare with, the others"
            f" {numbers}"
        )
    if result.shards:
        lines.append(
            f"extracted again: {counted(len(result.shards), 'shard')},"
            f" {counted(result.tokens, 'token')}, {numbers}"
        )
    lines.append(f"{result.cache}: complete")
    lines.append(f"content digest {result.content_digest}")
    return "\n".join(lines)

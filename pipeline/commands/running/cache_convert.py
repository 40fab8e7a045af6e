"""`cache convert`: convert with a progress bar, and print the result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from cache.storage import StorageLocation
from cache.upkeep.convert import convert_cache
from pipeline.commands.counted import counted
from pipeline.progress import BarProgress, count_columns, progress_bar
from pipeline.upkeep.recode import new_codecs
from pipeline.upkeep.settings import RecodeSettings


def convert_and_report(
    source: StorageLocation,
    target: StorageLocation,
    container: str | None,
    settings: RecodeSettings,
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Convert a cache; print the result unless `as_json`; return it.

    Raises:
        CacheError, InputError: as `new_codecs` and `convert_cache`.
    """
    with progress_bar(*count_columns()) as bar:
        codecs = new_codecs(source, target, settings, BarProgress(bar))
        task = bar.add_task("convert", total=None)
        result = convert_cache(
            source,
            target,
            container=container,
            codecs=codecs,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not as_json:
        click.echo(
            f"{result.cache}: {counted(result.examples, 'example')} in"
            f" {counted(result.shards, 'shard')} ({result.resumed_shards} resumed),"
            f" {result.format} {result.codec}, {result.bytes / 1e6:,.1f} MB (was"
            f" {result.source_bytes / 1e6:,.1f} MB); content digest {result.content_digest[:16]}…,"
            f" {'as before' if result.same_content else 'new, as the states have a new codec'}"
        )
    return asdict(result)

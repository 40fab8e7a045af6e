"""`cache convert`: the same content in another format or codec."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from cache.codecs import CODEC_NAMES
from cache.convert import convert_cache
from cache.formats import FORMAT_NAMES
from pipeline.commands.shell import command
from pipeline.progress import progress_bar


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--format", "container", type=click.Choice(FORMAT_NAMES), help="Format of the new cache.  [default: the old one's]")
@click.option("--codec", type=click.Choice(CODEC_NAMES), help="Codec of the new cache.  [default: the old one's]")
@command
def convert(source: Path, target: Path, *, container: str | None, codec: str | None, as_json: bool) -> dict[str, Any]:
    """Write the cache SOURCE anew as TARGET, in another format or codec. The teacher is not needed.

    Identity is kept, and in the same codec the content digest, too. Interrupted, it goes on when it is run again.

    \b
    Examples:
      llm-modules cache convert my-cache my-cache-hdf5 --format hdf5
    """
    with progress_bar(TextColumn("convert"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("convert", total=None)
        result = convert_cache(
            source,
            target,
            container=container,
            codec=codec,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not as_json:
        click.echo(
            f"{result.cache}: {result.examples:,} examples in {result.shards} shards ({result.resumed_shards} from before), "
            f"{result.format} {result.codec}, {result.bytes / 1e6:,.1f} MB (was {result.source_bytes / 1e6:,.1f} MB); "
            f"content digest {result.content_digest[:16]}…, {'the same' if result.same_content else 'another'} as before"
        )
    return asdict(result)

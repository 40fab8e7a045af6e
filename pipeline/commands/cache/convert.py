"""`cache convert`: the same content in another format or codec."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click
import cloup
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from cache.convert import convert_cache
from cache.formats import FORMAT_NAMES
from cache.places import Place
from pipeline.commands.cache_places import cache_places
from pipeline.commands.codec_options import codec_options
from pipeline.commands.counted import counted
from pipeline.commands.shell import command
from pipeline.extract.recode import RecodeSettings, new_codecs
from pipeline.progress import progress_bar


@cloup.command()
@click.argument("source")
@click.argument("target")
@cloup.option_group(
    "The new cache",
    click.option(
        "--format", "container", type=click.Choice(FORMAT_NAMES), help="Format of the new cache.  [default: the old one's]"
    ),
)
@codec_options(None)
@cloup.option_group(
    "The teacher, for --fidelity kl=…",
    click.option("--teacher", help="The cache's, where that has moved; only its LM head is asked."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
)
@command
@cache_places("source", "target")
def convert(source: Place, target: Place, *, container: str | None, as_json: bool, **options: Any) -> dict[str, Any]:
    """Write the cache SOURCE anew as TARGET, in another format or codec. The data set is not needed, and the teacher only where
    a KL divergence is asked for.

    Content is kept, and in the same codec the content digest, too. What int8 or klt have lost cannot come back: only exact
    (bf16) layers can be given another codec. Interrupted, it goes on when it is run again.

    \b
    Examples:
      llm-modules cache convert my-cache my-cache-hdf5 --format hdf5
      llm-modules cache convert my-cache my-small-cache --codec klt --fidelity rel=0.09
    """
    with progress_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("convert", total=None)

        def step(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        codecs = new_codecs(source, target, RecodeSettings(**options), step)
        result = convert_cache(
            source,
            target,
            container=container,
            codecs=codecs,
            progress=lambda done, total: bar.update(task, description="convert", completed=done, total=total),
        )
    if not as_json:
        click.echo(
            f"{result.cache}: {counted(result.examples, 'example')} in "
            f"{counted(result.shards, 'shard')} ({result.resumed_shards} from before), "
            f"{result.format} {result.codec}, {result.bytes / 1e6:,.1f} MB (was {result.source_bytes / 1e6:,.1f} MB); "
            f"content digest {result.content_digest[:16]}…, "
            f"{'as before' if result.same_content else 'a new one, for its states are coded anew'}"
        )
    return asdict(result)

"""`cache convert`: the same content in another format or codec."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.location import require_separate
from cache.names import CONTAINER_NAMES
from cache.storage import StorageLocation
from pipeline.codec_fit.requirements import by_layer
from pipeline.commands.checks import require_cache, require_teacher
from pipeline.commands.codec_options import codec_options
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command


@cloup.command()
@click.argument("source")
@click.argument("target")
@cloup.option_group(
    "The new cache",
    click.option(
        "--format",
        "container",
        type=click.Choice(CONTAINER_NAMES),
        help="Format of the new cache.  [default: the old one's]",
    ),
)
@codec_options(None)
@cloup.option_group(
    "The teacher, for --fidelity kl=…",
    click.option("--teacher", help="The cache's, where that has moved; only its LM head is asked."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
)
@command
@location_options("source", "target")
def convert(
    source: StorageLocation,
    target: StorageLocation,
    *,
    container: str | None,
    as_json: bool,
    **options: Any,
) -> dict[str, Any]:
    """Write the cache SOURCE anew as TARGET, in another format or codec. The data set is not
    needed, and the teacher only where a KL divergence is asked for.

    Content is kept, and in the same codec the content digest, too. What int8 or klt have lost
    cannot come back: only exact (bf16) layers can be given another codec. Interrupted, it goes on
    when it is run again.

    \b
    Examples:
      llm-modules cache convert my-cache my-cache-hdf5 --format hdf5
      llm-modules cache convert my-cache my-small-cache --codec klt --fidelity rel=0.09
    """
    manifest = require_cache(source)
    if not target.is_remote:
        require_separate(source, target)
    require_device(options["device"])
    require_teacher(options["teacher"])
    for name in ("codec", "fidelity", "bits") if manifest is not None else ():
        by_layer(f"--{name}", options[name], manifest.layers)  # type: ignore[union-attr]
    from pipeline.commands.running.cache_convert import convert_and_tell

    return convert_and_tell(source, target, container, options, as_json=as_json)

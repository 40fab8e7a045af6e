"""`cache convert`: write the same content in another format or codec."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click
import cloup

from cache.location import require_separate
from cache.names import CONTAINER_NAMES
from cache.storage import StorageLocation
from pipeline.codec_fit.options import CodecOptions
from pipeline.codec_fit.requirements import by_layer
from pipeline.commands.checks import require_cache, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.upkeep.settings import RecodeSettings

_CODEC = [field.name for field in fields(CodecOptions)]


@cloup.command()
@click.argument("source")
@click.argument("target")
@cloup.option_group(
    "The new cache",
    click.option(
        "--format",
        "container",
        type=click.Choice(CONTAINER_NAMES),
        help="Format of the new cache.  [default: as before]",
    ),
)
@option_section("Codec of the hidden states", RecodeSettings, fields=_CODEC)
@option_section("The teacher, for --fidelity kl=…", RecodeSettings, fields=["teacher", "device"])
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
    """Write the cache SOURCE to TARGET in another format or codec. The data set is not needed; the
    teacher is needed only for --fidelity kl=….

    Content is kept, and with the same codec also the content digest. What int8 or klt lost cannot
    be restored: only exact (bf16) layers can get another codec. An interrupted conversion
    continues when the command is repeated.

    \b
    Examples:
      llm-modules cache convert my-cache my-cache-hdf5 --format hdf5
      llm-modules cache convert my-cache my-small-cache --codec klt --fidelity rel=0.09
    """
    manifest = require_cache(source)
    if not target.is_remote:
        require_separate(source, target)
    settings = RecodeSettings(**options)
    require_device(settings.device)
    require_teacher(settings.teacher)
    if manifest is not None:
        for name in ("codec", "fidelity", "bits"):
            by_layer(f"--{name}", getattr(settings, name), manifest.layers)
    from pipeline.commands.running.cache_convert import convert_and_report

    return convert_and_report(source, target, container, settings, as_json=as_json)

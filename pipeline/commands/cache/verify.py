"""`cache verify`: check a cache's bytes, and with --deep its states."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_repairable, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.upkeep.settings import RecheckSettings


@cloup.command()
@click.argument("cache")
@option_section(
    "Against the teacher",
    RecheckSettings,
    click.option(
        "--deep",
        is_flag=True,
        help="Also run the teacher over a sample, and compare layer by layer.",
    ),
)
@command
@location_options("cache")
def verify(cache: StorageLocation, *, deep: bool, as_json: bool, **options: Any) -> dict[str, Any]:
    """Check every byte of a cache: checksums, shapes, offsets, row ids, token ids, loss masks,
    finite values.

    All damage is listed, with file and examples. Exit status 1 if something is damaged or missing,
    or, with --deep, if a layer's stored states differ from the teacher's.

    \b
    Examples:
      llm-modules cache verify my-cache
      llm-modules cache verify my-cache --deep --sample 50
    """
    require_repairable(cache)
    settings = RecheckSettings(**options)
    require_device(settings.device)
    require_teacher(settings.teacher if deep else None)
    from pipeline.commands.running.cache_verify import verify_and_report

    return verify_and_report(cache, settings if deep else None, as_json=as_json)

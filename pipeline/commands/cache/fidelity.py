"""`cache fidelity`: measure size and distortion of each codec on a cache's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.errors import InputError
from pipeline.upkeep.settings import FidelitySettings


@cloup.command()
@click.argument("cache")
@option_section(
    "Measurement",
    FidelitySettings,
    click.option(
        "--out",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for fidelity.json, fidelity.html and pictures.",
    ),
)
@command
@location_options("cache")
def fidelity(
    cache: StorageLocation, *, out: Path | None, as_json: bool, **options: Any
) -> dict[str, Any]:
    """Compare codecs on a cache's own data: bits per value against distortion, with the Gaussian
    rate-distortion bound.

    Codecs are fitted to some examples and measured on others. The states of layers that are not
    stored exactly are computed again by the teacher, and the stored ones are measured too.

    \b
    Examples:
      llm-modules cache fidelity my-cache --out my-fidelity
      llm-modules cache fidelity my-cache --layer 12 --no-kl
    """
    if out is not None and out.resolve().is_relative_to(cache.folder.resolve()):
        raise InputError(f"--out {out}: is inside the cache; choose another folder")
    require_cache(cache)
    settings = FidelitySettings(cache=cache, **options)
    require_device(settings.device)
    require_teacher(settings.teacher)
    from pipeline.commands.running.cache_fidelity import compare_and_report

    return compare_and_report(settings, out, as_json=as_json)

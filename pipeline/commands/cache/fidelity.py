"""`cache fidelity`: what each codec takes on this cache's own data, and what it loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command
from pipeline.errors import InputError


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "What is measured",
    click.option("--layer", type=int, help="Only this layer.  [default: all]"),
    click.option(
        "--tokens",
        type=click.IntRange(min=2),
        default=65536,
        show_default=True,
        help="Tokens to measure on.",
    ),
    click.option(
        "--kl-tokens",
        type=click.IntRange(min=2),
        default=4096,
        show_default=True,
        help="Of these, for the LM head.",
    ),
    click.option(
        "--calibration-tokens",
        type=click.IntRange(min=1),
        default=32768,
        show_default=True,
        help="Tokens to fit the codecs to, of other examples; half of all where there are fewer.",
    ),
    click.option("--seed", default=0, show_default=True, help="Chooses both."),
    click.option(
        "--kl/--no-kl",
        default=True,
        show_default=True,
        help="Measure KL divergences of the last layer; takes the teacher.",
    ),
    click.option("--teacher", help="The cache's teacher, where that has moved."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
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
    """Compare the codecs on a cache's own data: bits a value against what is lost, beside the
    Gaussian rate-distortion bound.

    The codecs are fitted to some examples and measured on others. Layers that the cache stores
    exactly are taken from it; of others the teacher is asked again, and what the cache stores is
    measured too.

    \b
    Examples:
      llm-modules cache fidelity my-cache --out my-fidelity
      llm-modules cache fidelity my-cache --layer 12 --no-kl
    """
    if out is not None and out.resolve().is_relative_to(cache.folder.resolve()):
        raise InputError(f"--out {out}: lies in the cache itself; name another folder")
    require_cache(cache)
    require_device(options["device"])
    require_teacher(options["teacher"])
    from pipeline.commands.running.cache_fidelity import compare_and_tell

    return compare_and_tell(cache, out, options, as_json=as_json)

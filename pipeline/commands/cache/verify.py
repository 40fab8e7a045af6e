"""`cache verify`: is it what was written, and is it the teacher's?"""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_mendable, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "Against the live teacher",
    click.option(
        "--deep",
        is_flag=True,
        help="Also run the live teacher over a sample and compare, layer by layer.",
    ),
    click.option(
        "--sample",
        type=click.IntRange(min=1),
        default=16,
        show_default=True,
        help="Examples to compare.",
    ),
    click.option("--seed", default=0, show_default=True, help="Of the random sample."),
    click.option("--teacher", help="The cache's teacher, where that has moved."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
)
@command
@location_options("cache")
def verify(
    cache: StorageLocation,
    *,
    deep: bool,
    sample: int,
    seed: int,
    teacher: str | None,
    device: str,
    as_json: bool,
) -> dict[str, Any]:
    """Check every byte of a cache: checksums, shapes, offsets, row ids, token ids, loss masks,
    finite values.

    All damage is listed, with file and examples. Exit status 1 where something is damaged or
    missing, or, with --deep, where a layer's stored states are not the teacher's.

    \b
    Examples:
      llm-modules cache verify my-cache
      llm-modules cache verify my-cache --deep --sample 50
    """
    require_mendable(cache)
    require_device(device)
    require_teacher(teacher if deep else None)
    from pipeline.commands.running.cache_verify import verify_and_tell

    return verify_and_tell(
        cache, deep=deep, sample=sample, seed=seed, teacher=teacher, device=device, as_json=as_json
    )

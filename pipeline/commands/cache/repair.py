"""`cache repair`: what is lost is extracted again."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_data_set, require_repairable, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "What is extracted again, and from what",
    click.option("--teacher", help="The cache's teacher, where that has moved."),
    click.option("--dataset", help="The cache's data set, where that has moved."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, …"),
    click.option(
        "--skip-non-finite",
        is_flag=True,
        help="Leave out, and count, rows for which the teacher gives NaN or infinity.",
    ),
    click.option(
        "--allow-other-numbers",
        is_flag=True,
        help=(
            "Accept shards whose numbers differ from the lost ones, as on another machine; the"
            " content digest changes."
        ),
    ),
)
@command
@location_options("cache")
def repair(cache: StorageLocation, *, as_json: bool, **options: Any) -> dict[str, Any]:
    """Verify a cache, and extract again the shards that are damaged or missing, and no others.

    Manifest and journal hold a copy of what matters in the other: where one of them is lost it is
    put back. The repaired cache has the content digest that it had.

    \b
    Examples:
      llm-modules cache repair my-cache
      llm-modules cache repair my-cache --teacher moved/Qwen2-1.5B --dataset moved/rows.jsonl
    """
    require_repairable(cache)
    require_device(options["device"])
    require_teacher(options["teacher"])
    require_data_set(options["dataset"])
    from pipeline.commands.running.cache_repair import repair_and_tell

    return repair_and_tell(cache, options, as_json=as_json)

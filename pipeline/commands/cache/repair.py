"""`cache repair`: extract lost shards again."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_data_set, require_repairable, require_teacher
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.upkeep.settings import RepairSettings


@cloup.command()
@click.argument("cache")
@option_section("Extracting again", RepairSettings)
@command
@location_options("cache")
def repair(cache: StorageLocation, *, as_json: bool, **options: Any) -> dict[str, Any]:
    """Verify a cache, and extract again only the shards that are damaged or missing.

    Manifest and journal each hold a copy of what matters in the other: a lost one is restored. The
    repaired cache has its former content digest.

    \b
    Examples:
      llm-modules cache repair my-cache
      llm-modules cache repair my-cache --teacher moved/Qwen2-1.5B --dataset moved/rows.jsonl
    """
    require_repairable(cache)
    settings = RepairSettings(cache=cache, **options)
    require_device(settings.device)
    require_teacher(settings.teacher)
    require_data_set(settings.dataset)
    from pipeline.commands.running.cache_repair import repair_and_report

    return repair_and_report(settings, as_json=as_json)

"""`cache probe`: rank the layers of a cache by what a linear model reads from them."""

from __future__ import annotations

from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section
from pipeline.commands.shell import command
from pipeline.probe.settings import ProbeSettings


@cloup.command()
@click.argument("cache")
@option_section("The probe", ProbeSettings)
@command
@location_options("cache", "test")
def probe(cache: StorageLocation, *, as_json: bool, **options: Any) -> dict[str, Any]:
    """Rank the layers of a cache for its own task, in seconds and without a student.

    A linear model predicts the answer from the prompt's states: its label if answers repeat, else
    the words in it that the prompt lacks. The layer with the best cross-validated score is the one
    to try first with `train --condition prompt --layers`; --layers auto takes it. Cross-validation
    flatters if rows rephrase each other; with --test the examples of another cache are scored.

    \b
    Examples:
      llm-modules cache probe my-prompts
      llm-modules cache probe my-prompts --layers 12,-1 --examples 5000
      llm-modules cache probe my-prompts --test my-test-prompts
    """
    require_cache(cache)
    require_cache(options["test"])
    settings = ProbeSettings(cache=cache, **options)
    from pipeline.commands.running.cache_probe import probe_and_report

    return probe_and_report(settings, as_json=as_json)

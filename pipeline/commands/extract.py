"""`extract`: run the teacher once over a data set."""

from __future__ import annotations

import re
from typing import Any

import click
import cloup

from cache.location import require_cache_location
from pipeline.codec_fit.options import CodecOptions
from pipeline.codec_fit.requirements import require_codec_options
from pipeline.commands.checks import require_data_set, require_teacher
from pipeline.commands.config_file import options_as_yaml
from pipeline.commands.devices import require_device
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import is_given, option_section, take_fields
from pipeline.commands.shell import command
from pipeline.data.options import RowOptions
from pipeline.embedded import EMBEDDED_TEACHER
from pipeline.extract.engines.choose import engine_named
from pipeline.extract.options import (
    EngineOptions,
    JobOptions,
    PassOptions,
    StoreOptions,
    TokenOptions,
)
from pipeline.extract.settings import ExtractSettings


@cloup.command()
@option_section(
    "The job",
    JobOptions,
    click.option(
        "--plan",
        is_flag=True,
        help="Only forecast the job: examples, bytes, disk, time. Writes nothing.",
    ),
)
@option_section("Data set", RowOptions)
@option_section("Tokens", TokenOptions)
@option_section("Storage", StoreOptions)
@option_section("Codec of the hidden states", CodecOptions)
@option_section("The teacher's pass", PassOptions)
@option_section("Processes", EngineOptions)
@command
@location_options("cache")
def extract(*, as_json: bool, plan: bool, **options: Any) -> dict[str, Any]:
    """Run the frozen teacher ONCE over a data set and write its hidden states to a cache.

    Published shards are durable: after a crash, repeat the command and it continues with the next
    shard. A cache of another teacher, data set or setting is refused, and what differs is listed.

    \b
    Examples:
      llm-modules extract --cache my-cache
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache my-cache --plan
      llm-modules extract --teacher model.gguf --dataset rows.parquet --cache my-cache --format hdf5
      llm-modules extract --cache my-cache --layers -1,0 --codec klt --fidelity kl=0.01
      llm-modules extract --cache my-cache --condition prompt
      llm-modules extract --cache my-cache --engine ray --workers 4
      llm-modules extract --teacher Qwen/Qwen2-1.5B --dataset rows.jsonl --cache s3://bucket/my-cache
      torchrun --nproc-per-node 4 cli.py extract --teacher Qwen/Qwen2-1.5B --cache my-cache
    """
    engine = EngineOptions(**take_fields(EngineOptions, options))
    if re.fullmatch(r"random:\d+", options["teacher"]):
        options["teacher"] += f":{EMBEDDED_TEACHER}"
    if options["condition"] == "prompt" and not is_given("layers"):
        options["layers"] = click.get_current_context().params["layers"] = ()  # auto
    settings = ExtractSettings(**options, options=options_as_yaml())
    _check(settings)
    engine_named(engine)
    from pipeline.commands.running.extract import extract_or_plan

    return extract_or_plan(settings, engine, plan_only=plan, as_json=as_json)


def _check(settings: ExtractSettings) -> None:
    """Raise InputError or CacheError for what can be refused without loading torch."""
    settings.require_sense()
    require_device(settings.device)
    require_teacher(settings.teacher, settings.layers)
    require_data_set(settings.dataset)
    if settings.layers:  # else they follow from the teacher's depth
        require_codec_options(settings.layers, settings)
    if not settings.location.is_remote:
        require_cache_location(settings.location)

"""`cache inspect`: describe a cache."""

from __future__ import annotations

import json
from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import require_cache
from pipeline.commands.counted import counted
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command
from pipeline.errors import InputError


@cloup.command()
@click.argument("cache")
@cloup.option_group(
    "Output",
    click.option(
        "--options",
        is_flag=True,
        help="Print the options of its extract instead, as a file for extract --config.",
    ),
)
@command
@location_options("cache")
def inspect(cache: StorageLocation, *, options: bool, as_json: bool) -> dict[str, Any]:
    """Describe a cache, finished or not. No shard is opened.

    \b
    Examples:
      llm-modules cache inspect my-cache
      llm-modules cache inspect my-cache --json | jq .content_digest
      llm-modules cache inspect my-cache --options > extract.yaml
    """
    require_cache(cache)
    from cache.upkeep.summary import summarise_cache

    summary = summarise_cache(cache)
    if options:
        text = summary["provenance"].get("options")
        if not text:
            raise InputError(
                f"{summary['cache']}: records no options; it was not written by this version's"
                " extract"
            )
        if not as_json:
            click.echo(text.encode(), nl=False)  # UTF-8 for --config, on any terminal
        return {"options": text}
    if not as_json:
        click.echo(_in_words(summary))
    return summary


def _in_words(summary: dict[str, Any]) -> str:
    shards, planned = (counted(summary[name], "shard") for name in ("shards", "planned_shards"))
    state = "complete" if summary["complete"] else f"NOT complete: {summary['shards']} of {planned}"
    left_out = (
        ", ".join(f"{count} {reason}" for reason, count in summary["left_out"].items()) or "none"
    )
    lines = {
        "cache": f"{summary['cache']} ({state})",
        "stored as": (
            f"{summary['format']}, {summary['codec']}, {shards}, {summary['bytes'] / 1e6:,.1f} MB"
        ),
        "layers": f"{', '.join(map(str, summary['layers']))}, each {summary['hidden_size']} wide",
        "examples": f"{summary['examples']:,} (left out: {left_out})",
        "tokens": f"{summary['tokens']:,} (stored: {summary['stored_tokens']:,})",
    }
    if summary["tokens"]:
        lines["size"] = (
            f"{summary['bytes_per_token']:,} bytes per token, {summary['bits_per_value']} bits per"
            " value"
        )
    lines["content digest"] = summary["content_digest"] or "– (not complete)"
    for field, value in summary["identity"].items():
        lines[f"identity: {field}"] = value if isinstance(value, str) else json.dumps(value)
    for field in ("teacher", "dataset"):
        if field in summary["provenance"]:
            lines[f"made from: {field}"] = str(summary["provenance"][field])
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())

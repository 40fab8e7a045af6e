"""`chat`: answer message after message with one loaded student."""

from __future__ import annotations

from typing import Any

import click
import cloup

from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section, take_fields
from pipeline.commands.shell import command
from pipeline.commands.writer_checks import checked_sampling, checked_writer
from pipeline.generation.settings import Sampling, WriterSettings


@cloup.command()
@option_section("The student", WriterSettings)
@option_section("Sampling", Sampling)
@cloup.option_group(
    "The conversation",
    click.option("--forget", is_flag=True, help="Answer each message alone, without earlier ones."),
)
@command
@location_options("cache")
def chat(*, as_json: bool, forget: bool, **options: Any) -> dict[str, Any]:
    """Talk with a trained student. The models are loaded once; an empty line or Ctrl-D ends, /new
    starts a new conversation.

    Messages are read from stdin, one per line, so a file can be piped in.

    \b
    Example:
      llm-modules chat --run my-run
    """
    writer = checked_writer(WriterSettings(**take_fields(WriterSettings, options)))
    sampling = checked_sampling(Sampling(**options))
    from pipeline.commands.running.chat import converse

    return converse(writer, sampling, forget=forget, as_json=as_json)

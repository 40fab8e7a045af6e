"""`chat`: turn after turn with one loaded student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation
from pipeline.commands.checks import utf8_text
from pipeline.commands.location_options import location_options
from pipeline.commands.shell import command
from pipeline.commands.writing_options import WriterChoice, sampling_options, writer_options


@cloup.command()
@writer_options
@sampling_options
@cloup.option_group(
    "The conversation",
    click.option(
        "--forget", is_flag=True, help="Answer each message by itself, without those before it."
    ),
)
@command
@location_options("cache")
def chat(
    *,
    as_json: bool,
    run: Path,
    teacher: str | None,
    device: str,
    teacher_device: str | None,
    cache: StorageLocation | None,
    system: str | None,
    forget: bool,
    **sampling: Any,
) -> dict[str, Any]:
    """Talk with a trained student. The models are loaded once; end with an empty line or Ctrl-D,
    /new starts afresh.

    Messages are read from stdin, a line each, so a file can be piped in.

    \b
    Example:
      llm-modules chat --run my-run
    """
    system = utf8_text(system, "--system")
    choice = WriterChoice(
        run=run, teacher=teacher, device=device, teacher_device=teacher_device, cache=cache
    )
    choice.look_at()
    from pipeline.commands.running.chat import converse

    return converse(choice, system, sampling, forget=forget, as_json=as_json)

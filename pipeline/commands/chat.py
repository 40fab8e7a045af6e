"""`chat`: turn after turn with one loaded student."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

from cache.places import Place
from pipeline.commands.cache_places import cache_places
from pipeline.commands.shell import command
from pipeline.commands.writing_options import sampling_options, writer_options
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.generation.open_writer import open_writer
from pipeline.generation.writer import Sampling


@cloup.command()
@writer_options
@sampling_options
@cloup.option_group(
    "The conversation",
    click.option("--forget", is_flag=True, help="Answer each message by itself, without those before it."),
)
@command
@cache_places("cache")
def chat(
    *,
    as_json: bool,
    run: Path,
    teacher: str | None,
    device: str,
    teacher_device: str | None,
    cache: Place | None,
    system: str | None,
    forget: bool,
    **sampling: Any,
) -> dict[str, Any]:
    """Talk with a trained student. The models are loaded once; end with an empty line or Ctrl-D, /new starts afresh.

    Messages are read from stdin, a line each, so a file can be piped in.

    \b
    Example:
      llm-modules chat --run my-run
    """
    writer = open_writer(run, teacher=teacher, device=device, teacher_device=teacher_device, cache=cache, keep_teacher=True)
    opening = writer.opening(system)
    turns, answers = list(opening), []
    while message := _next_message():
        if message == "/new" or forget:
            turns = list(opening)
        if message == "/new":
            continue
        turns.append(Turn("user", message))
        show: Callable[[str], None] | None = None if as_json else lambda text: click.echo(text, nl=False)
        try:
            (written,) = writer.write([turns], Sampling(**sampling), show)
        except InputError as error:
            if not sys.stdin.isatty():
                raise
            click.echo(f"{error}; say it shorter, or /new for a new conversation", err=True)
            turns.pop()
            continue
        turns.append(Turn("assistant", written.text))
        answers.append({"message": message, "answer": written.text, "stopped": written.stopped})
        if not as_json:
            click.echo()
    return {"answers": answers, "leaks": writer.record["leaks"]}


def _next_message() -> str:
    if sys.stdin.isatty():
        click.echo("you> ", nl=False, err=True)
    return sys.stdin.readline().strip()

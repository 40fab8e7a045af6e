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
from pipeline.commands.writing_options import sampling_options, tell_end, writer_options
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.generation.open_writer import open_writer
from pipeline.generation.writer import Sampling, Written


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
    show: Callable[[str], None] | None = None if as_json else lambda text: click.echo(text, nl=False)
    turns, answers, unanswered = list(opening), list[dict[str, Any]](), 0
    while message := _next_message():
        if message == "/new" or forget:
            turns = list(opening)
        if message == "/new":
            continue
        turns.append(Turn("user", message))
        try:
            written = _answer(lambda said: writer.write([said], Sampling(**sampling), show)[0], turns, opening)
        except InputError as error:
            click.echo(f"not answered: {error}", err=True)
            unanswered += 1
            turns = list(opening)
            continue
        turns.append(Turn("assistant", written.text))
        answers.append({"message": message, "answer": written.text, "stopped": written.stopped})
        if not as_json:
            tell_end(written)
    if unanswered and not answers:
        raise InputError("no message was answered")
    return {"answers": answers, "unanswered": unanswered, "leaks": writer.record["leaks"]}


def _answer(write: Callable[[list[Turn]], Written], turns: list[Turn], opening: list[Turn]) -> Written:
    """Answer the last turn; a conversation that has become too long for it is begun anew with it, in place."""
    try:
        return write(turns)
    except InputError:
        if len(turns) == len(opening) + 1:
            raise
    click.echo("the conversation has become too long: what was said before this message is forgotten", err=True)
    turns[:] = [*opening, turns[-1]]
    return write(turns)


def _next_message() -> str:
    if sys.stdin.isatty():
        click.echo("you> ", nl=False, err=True)
    return sys.stdin.readline().strip()

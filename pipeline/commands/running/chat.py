"""`chat`: answer messages from stdin until it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from pipeline.commands.running.answer_end import print_end
from pipeline.commands.terminal import stdout_is_closed
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.generation.answers import Written
from pipeline.generation.open_writer import open_writer
from pipeline.generation.settings import Sampling, WriterSettings


def converse(
    settings: WriterSettings, sampling: Sampling, *, forget: bool, as_json: bool
) -> dict[str, Any]:
    """Answer messages from stdin, streamed to stdout unless `as_json`; return all answers.

    Raises:
        InputError: as `open_writer`, or no message could be answered.
    """
    writer = open_writer(settings, keep_teacher=True)
    opening = writer.opening(settings.system)
    show: Callable[[str], None] | None = (
        None if as_json else lambda text: click.echo(text, nl=False)
    )
    turns, answers, unanswered = list(opening), list[dict[str, Any]](), 0
    while not stdout_is_closed() and (message := _next_message()):
        if message == "/new" or forget:
            turns = list(opening)
        if message == "/new":
            continue
        turns.append(Turn("user", message))
        try:
            written = _answer(
                lambda prompt: writer.write([prompt], sampling, show)[0], turns, opening
            )
        except InputError as error:
            click.echo(f"not answered: {error}", err=True)
            unanswered += 1
            turns = list(opening)
            continue
        turns.append(Turn("assistant", written.text))
        answers.append({"message": message, "answer": written.text, "stopped": written.stopped})
        if not as_json:
            print_end(written)
    if unanswered and not answers:
        raise InputError("no message was answered")
    return {"answers": answers, "unanswered": unanswered, "leaks": writer.record.leaks}


def _answer(
    write: Callable[[list[Turn]], Written], turns: list[Turn], opening: list[Turn]
) -> Written:
    """Answer the last turn; drop earlier ones from `turns` if the conversation is too long."""
    try:
        return write(turns)
    except InputError:
        if len(turns) == len(opening) + 1:
            raise
    click.echo(
        "the conversation has become too long: messages before this one are dropped",
        err=True,
    )
    turns[:] = [*opening, turns[-1]]
    return write(turns)


def _next_message() -> str:
    if sys.stdin.isatty():
        click.echo("you> ", nl=False, err=True)
    return sys.stdin.readline().strip()

"""`chat`: one message after the other, until there is none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from pipeline.commands.running.answers import tell_end
from pipeline.commands.terminal import reader_has_gone
from pipeline.commands.writing_options import WriterChoice
from pipeline.data.conversations import Turn
from pipeline.errors import InputError
from pipeline.generation.answers import Sampling, Written
from pipeline.generation.open_writer import open_writer


def converse(
    choice: WriterChoice,
    system: str | None,
    sampling: dict[str, Any],
    *,
    forget: bool,
    as_json: bool,
) -> dict[str, Any]:
    """Answer messages from stdin; all answers, which are streamed to stdout unless they are to be
    JSON.

    Raises:
        InputError: as `open_writer`, or there were messages and none was answered.
    """
    writer = open_writer(**choice.as_arguments(), keep_teacher=True)
    opening = writer.opening(system)
    show: Callable[[str], None] | None = (
        None if as_json else lambda text: click.echo(text, nl=False)
    )
    turns, answers, unanswered = list(opening), list[dict[str, Any]](), 0
    while not reader_has_gone() and (message := _next_message()):
        if message == "/new" or forget:
            turns = list(opening)
        if message == "/new":
            continue
        turns.append(Turn("user", message))
        try:
            written = _answer(
                lambda said: writer.write([said], Sampling(**sampling), show)[0], turns, opening
            )
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


def _answer(
    write: Callable[[list[Turn]], Written], turns: list[Turn], opening: list[Turn]
) -> Written:
    """Answer the last turn; a conversation that has become too long for it is begun anew with it,
    in place."""
    try:
        return write(turns)
    except InputError:
        if len(turns) == len(opening) + 1:
            raise
    click.echo(
        "the conversation has become too long: what was said before this message is forgotten",
        err=True,
    )
    turns[:] = [*opening, turns[-1]]
    return write(turns)


def _next_message() -> str:
    if sys.stdin.isatty():
        click.echo("you> ", nl=False, err=True)
    return sys.stdin.readline().strip()

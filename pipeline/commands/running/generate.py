"""`generate`: answer one prompt."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pipeline.commands.running.answers import tell_end
from pipeline.commands.writing_options import WriterChoice
from pipeline.data.conversations import Turn
from pipeline.generation.answers import Sampling
from pipeline.generation.open_writer import open_writer


def answer_prompt(
    choice: WriterChoice,
    system: str | None,
    prompt: str,
    sampling: dict[str, Any],
    *,
    as_json: bool,
) -> dict[str, Any]:
    """Answer one prompt, streamed to stdout unless `as_json`; return the answer.

    Raises:
        InputError: as `open_writer`, or the prompt is too long.
    """
    writer = open_writer(**choice.as_arguments(), keep_teacher=False)
    turns = [*writer.opening(system), Turn("user", prompt)]
    show = None if as_json else lambda text: click.echo(text, nl=False)
    (written,) = writer.write([turns], Sampling(**sampling), show)
    if not as_json:
        tell_end(written)
    return {"prompt": prompt, "leaks": writer.record.leaks, **asdict(written)}

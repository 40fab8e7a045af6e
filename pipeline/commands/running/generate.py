"""`generate`: answer one prompt."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pipeline.commands.running.answer_end import print_end
from pipeline.data.conversations import Turn
from pipeline.generation.open_writer import open_writer
from pipeline.generation.settings import Sampling, WriterSettings


def answer_prompt(
    settings: WriterSettings, prompt: str, sampling: Sampling, *, as_json: bool
) -> dict[str, Any]:
    """Answer one prompt, streamed to stdout unless `as_json`; return the answer.

    Raises:
        InputError: as `open_writer`, or the prompt is too long.
    """
    writer = open_writer(settings, keep_teacher=False)
    turns = [*writer.opening(settings.system), Turn("user", prompt)]
    show = None if as_json else lambda text: click.echo(text, nl=False)
    (written,) = writer.write([turns], sampling, show)
    if not as_json:
        print_end(written)
    return {"prompt": prompt, "leaks": writer.record.leaks, **asdict(written)}

"""`generate`: one answer."""

from __future__ import annotations

from dataclasses import asdict
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
from pipeline.generation.writer import Sampling


@cloup.command()
@cloup.option_group("The prompt", click.option("--prompt", required=True, help="What to ask."))
@writer_options
@sampling_options
@command
@cache_places("cache")
def generate(
    *,
    as_json: bool,
    run: Path,
    teacher: str | None,
    device: str,
    teacher_device: str | None,
    cache: Place | None,
    system: str | None,
    prompt: str,
    **sampling: Any,
) -> dict[str, Any]:
    """Answer one prompt with a trained student; the answer is streamed to stdout as it is written.

    \b
    Example:
      llm-modules generate --run my-run --prompt "Ida has 31 eggs. Ida sells 14. Ida finds 9. How many eggs does Ida have now?"
    """
    if not prompt.strip():
        raise InputError("--prompt: is empty; ask something")
    writer = open_writer(run, teacher=teacher, device=device, teacher_device=teacher_device, cache=cache, keep_teacher=False)
    turns = [*writer.opening(system), Turn("user", prompt)]
    show = None if as_json else lambda text: click.echo(text, nl=False)
    (written,) = writer.write([turns], Sampling(**sampling), show)
    if not as_json:
        tell_end(written)
    return {"prompt": prompt, "leaks": writer.record["leaks"], **asdict(written)}

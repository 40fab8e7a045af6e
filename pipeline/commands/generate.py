"""`generate`: one answer."""

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
from pipeline.errors import InputError


@cloup.command()
@cloup.option_group("The prompt", click.option("--prompt", required=True, help="What to ask."))
@writer_options
@sampling_options
@command
@location_options("cache")
def generate(
    *,
    as_json: bool,
    run: Path,
    teacher: str | None,
    device: str,
    teacher_device: str | None,
    cache: StorageLocation | None,
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
    prompt, system = utf8_text(prompt, "--prompt"), utf8_text(system, "--system")
    choice = WriterChoice(
        run=run, teacher=teacher, device=device, teacher_device=teacher_device, cache=cache
    )
    choice.look_at()
    from pipeline.commands.running.generate import answer_prompt

    return answer_prompt(choice, system, prompt, sampling, as_json=as_json)

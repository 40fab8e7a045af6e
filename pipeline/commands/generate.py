"""`generate`: answer one prompt."""

from __future__ import annotations

from typing import Any

import click
import cloup

from pipeline.commands.checks import utf8_text
from pipeline.commands.location_options import location_options
from pipeline.commands.options_from import option_section, take_fields
from pipeline.commands.shell import command
from pipeline.commands.writer_checks import checked_sampling, checked_writer
from pipeline.errors import InputError
from pipeline.generation.settings import Sampling, WriterSettings


@cloup.command()
@cloup.option_group(
    "The prompt", click.option("--prompt", required=True, help="The user's message.")
)
@option_section("The student", WriterSettings)
@option_section("Sampling", Sampling)
@command
@location_options("cache")
def generate(*, as_json: bool, prompt: str, **options: Any) -> dict[str, Any]:
    """Answer one prompt with a trained student; the answer is streamed to stdout.

    \b
    Example:
      llm-modules generate --run my-run --prompt "Ida has 31 eggs. Ida sells 14. How many now?"
    """
    if not prompt.strip():
        raise InputError("--prompt: is empty; ask something")
    prompt = utf8_text(prompt, "--prompt")
    writer = checked_writer(WriterSettings(**take_fields(WriterSettings, options)))
    sampling = checked_sampling(Sampling(**options))
    from pipeline.commands.running.generate import answer_prompt

    return answer_prompt(writer, prompt, sampling, as_json=as_json)

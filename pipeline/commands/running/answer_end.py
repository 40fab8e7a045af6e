"""The end of an answer on stdout."""

from __future__ import annotations

import click

from pipeline.commands.counted import counted
from pipeline.generation.answers import Written


def print_end(written: Written) -> None:
    """End the line of a streamed answer, with a note if it was cut."""
    cut = f"\n[cut after {counted(written.tokens, 'token')}; --max-new-tokens allows more]"
    click.echo("" if written.stopped else cut)

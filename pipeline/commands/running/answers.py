"""How the end of an answer is shown."""

from __future__ import annotations

import click

from pipeline.commands.counted import counted
from pipeline.generation.answers import Written


def tell_end(written: Written) -> None:
    """End the line of an answer that has been shown; where it was cut, say so."""
    cut = f"\n[cut after {counted(written.tokens, 'token')}; --max-new-tokens allows more]"
    click.echo("" if written.stopped else cut)

"""`cache`: look into a cache, check it, mend it, write it in another format."""

from __future__ import annotations

import click

from pipeline.commands.shell import LazyCommands


@click.group(
    cls=LazyCommands,
    package="pipeline.commands.cache",
    table={
        "inspect": "Say what a cache holds.",
        "verify": "Check every byte of a cache, and with --deep its numbers.",
        "repair": "Extract again what is damaged or missing.",
        "convert": "Write a cache in another format or codec.",
        "fidelity": "Compare the codecs on a cache's own data.",
    },
)
def cache() -> None:
    """Look into a cache, check it, mend it, or write it in another format."""

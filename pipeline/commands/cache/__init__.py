"""`cache`: inspect, verify, repair and convert caches."""

from __future__ import annotations

import click

from pipeline.commands.shell import LazyCommands


@click.group(
    cls=LazyCommands,
    package="pipeline.commands.cache",
    table={
        "inspect": "Describe a cache.",
        "verify": "Check every byte of a cache, and with --deep its states.",
        "repair": "Re-extract damaged or missing shards.",
        "convert": "Write a cache in another format or codec.",
        "probe": "Rank the layers of a cache for its own task.",
        "fidelity": "Compare codecs on a cache's own data.",
    },
)
def cache() -> None:
    """Inspect a cache, verify it, repair it, or convert it to another format."""

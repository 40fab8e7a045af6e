"""Counts with their noun."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return `1 shard`, `1,200 shards`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"

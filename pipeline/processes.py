"""Which of the processes that work together this one is; torchrun starts them, and tells each by
its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """One of some processes, counted from 0."""

    rank: int = 0
    processes: int = 1


def started_by_torchrun() -> bool:
    """Whether this process is one of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def leads() -> bool:
    """Whether this process speaks for the others that torchrun has started; so does one that was
    started alone."""
    return own_share().rank == 0


def own_share() -> Share:
    """This process among those that torchrun has started, or alone."""
    if not started_by_torchrun():
        return Share()
    return Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))

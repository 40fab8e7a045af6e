"""Rank and number of the processes that torchrun started, from its environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The rank of a process, counted from 0, and the number of processes."""

    rank: int = 0
    processes: int = 1


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_main_process() -> bool:
    """Return whether this is the main process: rank 0, or the only one."""
    return process_share().rank == 0


def process_share() -> Share:
    """Return this process's rank and the number of processes."""
    if not started_by_torchrun():
        return Share()
    return Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))

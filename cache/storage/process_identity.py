"""Identifying a process, to detect on the same machine that it has died."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return the identity of this process, as JSON."""
    return {
        "host": socket.gethostname(),
        "system": _system(),
        "pid": os.getpid(),
        "began": _start_time(os.getpid()),
    }


def has_died(process: dict[str, Any]) -> bool:
    """Return whether a process of this machine has ended."""
    if not process.get("system") or process["system"] != _system():
        return False
    if type(process.get("pid")) is not int:
        return False
    return _start_time(process["pid"]) != process.get("began")


def _system() -> str:
    """Return an identifier of this machine's boot and process namespace."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot + str(Path("/proc/self/ns/pid").readlink())
    return ""


def _start_time(pid: int) -> str | None:
    """Return a process's start in clock ticks since boot; None if there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return None

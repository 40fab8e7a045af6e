"""Versions, machine and peak memory of a training process; functions import torch when called."""

from __future__ import annotations

import os
import platform
import re
import resource
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

_RECORDED_VERSIONS = ("accelerate", "numpy", "torch", "transformers")


def environment() -> dict[str, Any]:
    """Return versions and machine, for run.json."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in _RECORDED_VERSIONS},
    }


def reset_peak_memory() -> None:
    """Restart the measurement of peak memory; it has no effect on systems other than Linux."""
    import torch

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, int]:
    """Return the peak memory of this process in bytes, on the host and on the GPU."""
    import torch

    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    peak = {
        "host_bytes": (
            1024 * (int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        )
    }
    if torch.cuda.is_available():
        peak["gpu_bytes"] = torch.cuda.max_memory_allocated()
    return peak

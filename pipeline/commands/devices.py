"""`--device`: refuse an impossible device before the slow import of torch."""

from __future__ import annotations

import ctypes
import re
from importlib.metadata import PackageNotFoundError, entry_points, version

from pipeline.errors import InputError

_KINDS = (
    "cpu",
    "cuda",
    "ipu",
    "xpu",
    "mkldnn",
    "opengl",
    "opencl",
    "ideep",
    "hip",
    "ve",
    "fpga",
    "maia",
    "xla",
    "lazy",
    "vulkan",
    "mps",
    "meta",
    "hpu",
    "mtia",
    "privateuseone",
)
"""Device types of torch; other packages may add more."""


def require_device(name: str | None, option: str = "--device") -> None:
    """Raise InputError for a device that torch cannot have here; the rest torch decides."""
    if name is None or name == "auto":
        return
    parts = re.fullmatch(r"([a-z][a-z0-9_]*)(:(0|[1-9]\d*))?", name)
    if parts is None:
        raise _unusable(option, name, "a device is TYPE or TYPE:NUMBER, such as cuda:1")
    if parts[1] not in _KINDS and not entry_points(group="torch.backends"):
        raise _unusable(option, name, "not a device type of torch, such as cpu or cuda")
    if parts[1] == "cuda" and (why := _why_no_cuda()):
        raise _unusable(option, name, why)


def _why_no_cuda() -> str | None:
    """Return why there is no usable GPU, or None.

    CUDA is not initialised: processes forked afterwards could not use it.
    """
    try:
        release = version("torch")
    except PackageNotFoundError:
        return None
    if release.endswith("+cpu"):
        return f"torch {release} is the build without GPUs"
    if "rocm" in release:
        return None
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    return None


def _unusable(option: str, name: str, why: str) -> InputError:
    return InputError(f"{option} {name}: not usable on this machine ({why}); use {option} cpu")

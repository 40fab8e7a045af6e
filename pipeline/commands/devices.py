"""`--device`: a name that cannot be right is found before torch, which takes seconds, is
imported."""

from __future__ import annotations

import ctypes
import re
from importlib.metadata import PackageNotFoundError, entry_points, version

from pipeline.errors import InputError

_KINDS = (
    "cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy", "vulkan",
    "mps", "meta", "hpu", "mtia", "privateuseone",
)  # fmt: skip
"""Those that torch has a name for; others come with a package of theirs."""


def require_device(name: str | None, option: str = "--device") -> None:
    """Refuse a device that torch cannot have here. What only torch can know passes.

    Raises:
        InputError: says why.
    """
    if name is None or name == "auto":
        return
    parts = re.fullmatch(r"([a-z][a-z0-9_]*)(:(0|[1-9]\d*))?", name)
    if parts is None:
        raise _unusable(option, name, "a device is a kind, or KIND:NUMBER, such as cuda:1")
    if parts[1] not in _KINDS and not entry_points(group="torch.backends"):
        raise _unusable(option, name, "no kind of device that torch knows, such as cpu or cuda")
    if parts[1] == "cuda" and (why := _why_no_cuda()):
        raise _unusable(option, name, why)


def _why_no_cuda() -> str | None:
    """Why no GPU can be used; None: one may be. Nothing of it is started, or processes forked later
    could not use it."""
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

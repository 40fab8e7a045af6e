"""The compute device, its dtype, and deterministic algorithms on a GPU."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

# oneDNN caches a kernel for each shape of a bfloat16 product, 1,024 by default. Sequence lengths
# rarely recur, so most kernels only take memory; a forward pass reuses a handful.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "32")
# cuBLAS is deterministic if its workspace is fixed before the first product.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch  # noqa: E402  # after the environment variables, which its libraries read

from pipeline.errors import InputError, reason  # noqa: E402

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
DtypeName = Literal["fp32", "bf16"]


def choose_device(name: str = "auto", option: str = "--device") -> torch.device:
    """Return the named device; `auto` is the accelerator, or the CPU if there is none.

    Raises:
        InputError: this machine has no such device.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{option} {name}: not usable on this machine ({reason(error)}); use {option} cpu"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> DtypeName:
    """Return the named compute dtype; `auto` is bf16 if the device has instructions for it.

    fp16 is not supported: the attention-sink tokens of middle layers overflow it.
    """
    if name == "bf16" or (name == "auto" and _has_fast_bf16(device)):
        return "bf16"
    return "fp32"


def free_memory() -> None:
    """Free the accelerator's unused memory, after an attempt that took too much."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.memory.empty_cache()


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Use deterministic GPU algorithms within a block; those for training on a CPU already are."""
    if device.type != "cuda":
        yield
        return
    settings: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill_memory = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # slow, and no code here reads uninitialised memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        settings.fill_uninitialized_memory = fill_memory


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    instructions = torch.cpu.get_capabilities()
    return bool(instructions.get("avx512_bf16") or instructions.get("amx_tile"))

"""What a run costs in floating-point operations, counted as they are made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model import LLMModulesForCausalLM


def training_flops(model: LLMModulesForCausalLM, batch: dict[str, Any], *, updates: bool) -> float:
    """Operations that a token of a batch costs a student, forwards and backwards; all weights are taken to be trained.

    Args:
        model: the student.
        batch: decoded, on its device.
        updates: whether it was trained at all; else it costs nothing.
    """
    if not updates:
        return 0.0
    with _counted() as counter:
        model(**batch, loss_only=True).loss.backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / int(batch["attention_mask"].sum())


@torch.no_grad()
def reading_flops(body: nn.Module, tokens: int, device: torch.device) -> float:
    """Operations that a token costs a teacher which reads a text of so many tokens once, without an LM head."""
    ids_1T = torch.ones(1, tokens, dtype=torch.long, device=device)
    with _counted() as counter:
        body(input_ids=ids_1T, use_cache=False)
    return float(counter.get_total_flops()) / tokens


@contextmanager
def _counted() -> Iterator[FlopCounterMode]:
    """Counts operations; attention is taken apart for that, as its fused kernels are not counted on every device."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield counter

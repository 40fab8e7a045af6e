"""What a run costs in floating-point operations, counted as they are made."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import (
    FlopCounterMode,
    addmm_flop,
    sdpa_backward_flop,
    sdpa_flop_count,
)

from pipeline.model import LLMModulesForCausalLM


def _by_tensors(formula: Any) -> Any:
    """A formula of PyTorch's own, which takes tensors, as its counter knows it."""
    known = partial(formula)
    known._get_raw = True  # type: ignore[attr-defined]  # the counter would give it shapes else
    return known


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> int:
    """Of fused attention. Several heads of queries may share one of keys and values, which PyTorch
    before 2.13 does not count."""
    heads = query.shape[1]
    return int(
        sdpa_flop_count(
            query.shape, *((len(each), heads, *each.shape[2:]) for each in (key, value))
        )
    )


_ALSO_COUNTED = {
    torch.ops.aten.addmm_: _by_tensors(addmm_flop),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _by_tensors(_attention),
    torch.ops.aten._scaled_dot_product_flash_attention: _by_tensors(_attention),
    torch.ops.aten._scaled_dot_product_efficient_attention: _by_tensors(_attention),
    torch.ops.aten._scaled_dot_product_cudnn_attention: _by_tensors(_attention),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _by_tensors(
        sdpa_backward_flop
    ),
}
"""What PyTorch's counter does not know: products added in place, the CPU's fused attention, and
before 2.13 shared heads."""


def training_flops(model: LLMModulesForCausalLM, batch: dict[str, Any]) -> float:
    """Operations that a token of a batch costs a student, forwards and backwards; all weights are
    taken to be trained.

    Args:
        model: the student.
        batch: decoded, on its device.
    """
    with _counter() as counter:
        model(**batch, loss_only=True).loss.backward()
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / int(batch["attention_mask"].sum())


@torch.no_grad()
def reading_flops(body: nn.Module, tokens: int, device: torch.device) -> float:
    """Operations that a token costs a teacher which reads a text of so many tokens once, without an
    LM head."""
    ids_1T = torch.ones(1, tokens, dtype=torch.long, device=device)
    with _counter() as counter:
        body(input_ids=ids_1T, use_cache=False)
    return float(counter.get_total_flops()) / tokens


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=_ALSO_COUNTED)

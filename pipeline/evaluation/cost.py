"""Floating-point operations, counted while they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pipeline.model import LLMModulesForCausalLM

Shape = torch.Size


def _product(_: Shape, left: Shape, right: Shape, **__: Any) -> int:
    """Return the operations of a product that is added in place."""
    return 2 * left[0] * left[1] * right[1]


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Return the operations of fused attention; several query heads may share keys and values."""
    heads = query[1]
    return int(sdpa_flop_count(query, (key[0], heads, *key[2:]), (value[0], heads, *value[2:])))


def _attention_backward(
    output: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(output, query, key, value))


_FORMULAS = {
    torch.ops.aten.addmm_: _product,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention: _attention,
    torch.ops.aten._scaled_dot_product_efficient_attention: _attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Operations missing from PyTorch's counter: products added in place, fused attention on a CPU, and
before PyTorch 2.13 query heads that share keys and values. PyTorch has no public names for the
kernels of fused attention; its own counter registers them by these."""


def training_flops(
    model: LLMModulesForCausalLM, batch: dict[str, Any], frozen: Sequence[nn.Parameter] = ()
) -> float:
    """Return the operations per token of a forward and backward pass.

    Args:
        model: the student.
        batch: decoded, on its device.
        frozen: weights that were not trained.
    """
    for weights in frozen:
        weights.requires_grad_(False)
    with _counter() as counter:
        model(**batch, loss_only=True).loss.backward()
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / int(batch["attention_mask"].sum())


@torch.no_grad()
def reading_flops(body: nn.Module, tokens: int, device: torch.device) -> float:
    """Return the operations per token of a forward pass over `tokens` tokens, without LM head."""
    ids_1T = torch.ones(1, tokens, dtype=torch.long, device=device)
    with _counter() as counter:
        body(input_ids=ids_1T, use_cache=False)
    return float(counter.get_total_flops()) / tokens


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=_FORMULAS)

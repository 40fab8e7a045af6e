"""The frozen weights of a student while it trains in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D


@contextmanager
def rounded_while_training(model: nn.Module) -> Iterator[None]:
    """Keep frozen linear weights in bfloat16, and restore them at the end.

    Mixed precision rounds a float32 weight to bfloat16 at each use. A frozen one is always rounded
    to the same value, so it is rounded once: no result changes, and on a GPU it takes half the
    memory. The weights in float32 stay in the host's memory.

    Args:
        model: the student; its adapters are trained, and stay in float32.
    """
    embedded = {
        id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)
    }  # an LM head may share them, and they are not rounded
    kept = [
        (layer.weight, layer.weight.data.cpu())
        for layer in model.modules()
        if isinstance(layer, nn.Linear | Conv1D)
        if not layer.weight.requires_grad and layer.weight.dtype == torch.float32
        if id(layer.weight) not in embedded
    ]
    for weight, _ in kept:
        weight.data = weight.data.bfloat16()
    try:
        yield
    finally:
        for weight, exact in kept:
            weight.data = exact.to(weight.device)

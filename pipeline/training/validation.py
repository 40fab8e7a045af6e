"""How well a student predicts examples it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.batches.decoder import StatesDecoder
from pipeline.labels import IGNORE


@dataclass(frozen=True)
class ValidationLoss:
    """Cross-entropy over labelled tokens.

    Attributes:
        loss: nats a token, each token counted alike whatever its batch.
        tokens: labelled tokens.
    """

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """`exp(loss)`."""
        return math.exp(min(self.loss, 700.0))


@torch.no_grad()
def validation_loss(
    model: nn.Module, batches: Iterable[dict[str, torch.Tensor]], decoder: StatesDecoder, device: torch.device
) -> ValidationLoss:
    """Mean loss of a student over batches, teacher-forced; `decoder` decodes their hidden states on the device."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for batch in batches:
        count = int((batch["labels"][:, 1:] != IGNORE).sum())
        moved = decoder({name: value.to(device) for name, value in batch.items()})
        total += float(model(**moved, loss_only=True, num_items_in_batch=1).loss)
        tokens += count
    model.train(was_training)
    return ValidationLoss(total / max(tokens, 1), tokens)

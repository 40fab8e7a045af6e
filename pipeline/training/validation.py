"""How well a student predicts examples it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

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
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """`exp(loss)`, which stays a number."""
    return math.exp(min(loss, 700.0))


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    decoder: nn.Module,
    device: torch.device,
    summed: Callable[[torch.Tensor], torch.Tensor] = lambda own: own,
) -> ValidationLoss:
    """Mean loss of a student over batches, teacher-forced.

    Args:
        model: the student.
        batches: of this process.
        decoder: decodes their hidden states on the device.
        device: of the student.
        summed: adds up figures over all processes.
    """
    was_training = model.training
    model.eval()
    own = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        own[1] += int((batch["labels"][:, 1:] != IGNORE).sum())
        moved = decoder({name: value.to(device) for name, value in batch.items()})
        own[0] += float(model(**moved, loss_only=True, num_items_in_batch=1).loss)
    model.train(was_training)
    total, tokens = summed(own.to(device)).tolist()
    return ValidationLoss(total / max(tokens, 1), int(tokens))

"""The validation loss of a student."""

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
        loss: nats per token; every token has the same weight, regardless of its batch.
        tokens: number of labelled tokens.
    """

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """The perplexity, `exp(loss)`."""
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """Return `exp(loss)`, limited so that it stays finite."""
    return math.exp(min(loss, 700.0))


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    decoder: nn.Module,
    device: torch.device,
    sum_over_processes: Callable[[torch.Tensor], torch.Tensor] = lambda figures: figures,
) -> ValidationLoss:
    """Return the mean loss of a student over batches, with teacher forcing.

    Args:
        model: the student.
        batches: of this process.
        decoder: decodes their hidden states on the device.
        device: of the student.
        sum_over_processes: adds figures over all processes.
    """
    was_training = model.training
    model.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        sums[1] += int((batch["labels"][:, 1:] != IGNORE).sum())
        decoded = decoder({name: value.to(device) for name, value in batch.items()})
        sums[0] += float(model(**decoded, loss_only=True, num_items_in_batch=1).loss)
    model.train(was_training)
    total, tokens = sum_over_processes(sums.to(device)).tolist()
    return ValidationLoss(total / max(tokens, 1), int(tokens))

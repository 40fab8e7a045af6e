"""The loss of each held-out row, and confidence intervals over rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.batches.examples import CachedExamples
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import BatchOrder
from pipeline.batches.sampler import ValidationBatches
from pipeline.data.split import MIN_HELD_OUT
from pipeline.evaluation.results import Interval, TransferScore
from pipeline.labels import IGNORE
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import Share

_RESAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class RowLosses:
    """The cross-entropy of rows, summed over the labelled tokens of each.

    Attributes:
        row_ids: of the rows.
        nats: per row.
        tokens: labelled tokens per row.
        text_bytes: UTF-8 bytes of their text per row.
    """

    row_ids: tuple[str, ...]
    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Nats per labelled token."""
        return float(self.nats.sum() / max(self.tokens.sum(), 1))

    @property
    def perplexity(self) -> float:
        """`exp(loss)`, always finite."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text, which do not depend on the tokenization."""
        return float(self.nats.sum() / max(self.text_bytes.sum(), 1) / math.log(2))

    def interval(self) -> Interval | None:
        """Return a bootstrap confidence interval of the loss over rows; None for too few rows."""
        if len(self.nats) < MIN_HELD_OUT:
            return None
        counts = _resampled_counts(len(self.nats))
        return _middle((counts @ self.nats) / np.maximum(counts @ self.tokens, 1))


def transfer_score(student: RowLosses, other: RowLosses) -> TransferScore | None:
    """Return `1 - student / other` on the rows that both have; None if there are none."""
    places = {row_id: place for place, row_id in enumerate(other.row_ids)}
    pairs = [
        (place, places[row_id]) for place, row_id in enumerate(student.row_ids) if row_id in places
    ]
    if not pairs:
        return None
    student_nats = student.nats[[pair[0] for pair in pairs]]
    other_nats = other.nats[[pair[1] for pair in pairs]]
    interval = None
    if len(pairs) >= MIN_HELD_OUT:
        counts = _resampled_counts(len(pairs))
        smallest = np.finfo(np.float64).tiny
        interval = _middle(1 - (counts @ student_nats) / np.maximum(counts @ other_nats, smallest))
    score = float(1 - student_nats.sum() / other_nats.sum())
    return TransferScore(score=score, interval=interval, rows=len(pairs))


def share_interval(right: int, count: int) -> Interval:
    """Return Wilson's confidence interval of a share (E. B. Wilson, 1927)."""
    z = 1.959964
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return a bootstrap confidence interval of a mean over rows; None for too few rows."""
    if len(values) < MIN_HELD_OUT:
        return None
    return _middle(_resampled_counts(len(values)) @ np.asarray(values, np.float64) / len(values))


@torch.no_grad()
def row_losses(
    model: LLMModulesForCausalLM,
    examples: CachedExamples,
    order: BatchOrder,
    decoder: nn.Module,
    device: torch.device,
) -> RowLosses:
    """Return the teacher-forced losses of a student; a row's answers are summed.

    Args:
        model: the student, in evaluation mode.
        examples: examples or answers.
        order: their batches.
        decoder: decodes their hidden states on the device.
        device: of the student.
    """
    nats, tokens, sizes = dict[str, float](), dict[str, int](), dict[str, int]()
    row_ids, indices = examples.cache.row_ids, examples.indices
    batches = CachedBatches(examples, ValidationBatches(order, Share()))
    for places, batch in zip(order.unshuffled(), batches, strict=True):
        decoded = decoder({name: value.to(device) for name, value in batch.items()})
        losses_B = model.token_losses(**decoded).double().sum(dim=1).tolist()
        counts_B = (batch["labels"] != IGNORE).sum(dim=1).tolist()
        for place, loss, count in zip(places, losses_B, counts_B, strict=True):
            row_id = row_ids[indices[place]]
            nats[row_id] = nats.get(row_id, 0.0) + loss
            tokens[row_id] = tokens.get(row_id, 0) + count
            sizes[row_id] = sizes.get(row_id, 0) + examples.learned_bytes(place)
    return RowLosses(
        row_ids=tuple(nats),
        nats=np.array(list(nats.values())),
        tokens=np.array(list(tokens.values()), np.int64),
        text_bytes=np.array(list(sizes.values()), np.int64),
    )


def _resampled_counts(rows: int) -> npt.NDArray[np.int64]:
    """Return how often each row is in each bootstrap sample, `[samples, rows]`; deterministic."""
    probabilities = np.full(rows, 1 / rows)
    return np.random.default_rng(0).multinomial(rows, probabilities, size=_RESAMPLES)


def _middle(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)

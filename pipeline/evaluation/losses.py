"""The loss of each row held out, and how sure a mean or a difference of them is."""

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
from pipeline.labels import IGNORE
from pipeline.model import LLMModulesForCausalLM
from pipeline.processes import Share

_DRAWS = 2000
_CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class RowLosses:
    """Cross-entropy of some rows, summed over each row's labelled tokens.

    Attributes:
        row_ids: of the rows.
        nats: of each row.
        tokens: labelled tokens of each row.
        text_bytes: what these tokens say, in bytes of UTF-8.
    """

    row_ids: tuple[str, ...]
    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    text_bytes: npt.NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Nats a labelled token, each token counted alike."""
        return float(self.nats.sum() / max(self.tokens.sum(), 1))

    @property
    def bits_a_byte(self) -> float:
        """The loss in bits a byte of text, which does not depend on how text is cut into tokens."""
        return float(self.nats.sum() / max(self.text_bytes.sum(), 1) / math.log(2))

    def interval(self) -> Interval | None:
        """Bootstrap confidence interval of the loss, over rows; None where they are too few."""
        if len(self.nats) < MIN_HELD_OUT:
            return None
        weights = _draws(len(self.nats))
        return _middle((weights @ self.nats) / np.maximum(weights @ self.tokens, 1))


@dataclass(frozen=True)
class TransferScore:
    """The share of another run's loss that a student does not have: `1 - student / other`, on the
    same rows.

    Nats are counted by row, so it does not matter whether the two cut the rows into the same
    tokens.

    Attributes:
        score: 0 where the student is no better, 1 where it is always right.
        interval: bootstrap confidence interval, over rows; None where they are too few.
        rows: how many rows both have.
    """

    score: float
    interval: Interval | None
    rows: int


def transfer_score(student: RowLosses, other: RowLosses) -> TransferScore | None:
    """How much of another run's loss a student does not have; the rows that both have count. None
    where there are none."""
    places = {row_id: place for place, row_id in enumerate(other.row_ids)}
    pairs = [
        (place, places[row_id]) for place, row_id in enumerate(student.row_ids) if row_id in places
    ]
    own, others = (
        run.nats[[pair[side] for pair in pairs]] for side, run in enumerate((student, other))
    )
    if not pairs:
        return None
    score, interval = float(1 - own.sum() / others.sum()), None
    if len(pairs) >= MIN_HELD_OUT:
        weights = _draws(len(pairs))
        interval = _middle(
            1 - (weights @ own) / np.maximum(weights @ others, np.finfo(np.float64).tiny)
        )
    return TransferScore(score, interval, len(pairs))


def share_interval(right: int, count: int) -> Interval:
    """Wilson's confidence interval of a share (E. B. Wilson, 1927)."""
    z = 1.959964
    share, spread = right / count, z * z / count
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Bootstrap confidence interval of a mean over rows; None where they are too few."""
    if len(values) < MIN_HELD_OUT:
        return None
    return _middle(_draws(len(values)) @ np.asarray(values, np.float64) / len(values))


@torch.no_grad()
def row_losses(
    model: LLMModulesForCausalLM,
    examples: CachedExamples,
    order: BatchOrder,
    decoder: nn.Module,
    device: torch.device,
) -> RowLosses:
    """The losses of a student on cached examples, teacher-forced; the answers of a row are added
    up.

    Args:
        model: the student, in evaluation mode.
        examples: the examples, or answers.
        order: which of them are read together.
        decoder: decodes their hidden states on the device.
        device: of the student.
    """
    nats, tokens, sizes = dict[str, float](), dict[str, int](), dict[str, int]()
    batches = CachedBatches(examples, ValidationBatches(order, Share()))
    for places, batch in zip(order.as_they_lie(), batches, strict=True):
        moved = decoder({name: value.to(device) for name, value in batch.items()})
        losses_B = model.token_losses(**moved).double().sum(dim=1).tolist()
        counts_B = (batch["labels"] != IGNORE).sum(dim=1).tolist()
        for place, loss, count in zip(places, losses_B, counts_B, strict=True):
            row_id = examples.cache.row_ids[examples.indices[place]]
            nats[row_id] = nats.get(row_id, 0.0) + loss
            tokens[row_id] = tokens.get(row_id, 0) + count
            sizes[row_id] = sizes.get(row_id, 0) + examples.learned_bytes(place)
    counts, size = (np.array(list(each.values()), np.int64) for each in (tokens, sizes))
    return RowLosses(tuple(nats), np.array(list(nats.values())), counts, size)


def _draws(rows: int) -> npt.NDArray[np.int64]:
    """How often each row is in each of many samples of as many rows, drawn with replacement; the
    same ones each time."""
    return np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=_DRAWS)


def _middle(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)

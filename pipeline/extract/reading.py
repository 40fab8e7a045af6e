"""The teacher reads the examples of a shard: batches of like length in, checked hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import torch

from cache import Example
from pipeline.data.tokens import TokenizedExample
from pipeline.errors import RunError
from pipeline.extract.plan import plan_batches
from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class ShardStates:
    """What the teacher gave for a shard.

    Attributes:
        examples: in the order of the data set.
        non_finite: examples left out because their states are not finite: tokens by row id.
    """

    examples: list[Example]
    non_finite: dict[str, int]


def read_hidden_states(
    teacher: Teacher,
    examples: Sequence[TokenizedExample],
    batch_tokens: int,
    *,
    skip_non_finite: bool = False,
    progress: Callable[[int], None] = lambda tokens: None,
) -> ShardStates:
    """Run the teacher over some examples, in batches of like length, and give them back in their order.

    Args:
        teacher: gives the states.
        examples: tokens to read.
        batch_tokens: most tokens of a padded batch.
        skip_non_finite: leave an example out whose states are not finite, instead of stopping.
        progress: called with the tokens just read.

    Raises:
        RunError: a layer's states of an example are not finite; names both, and how many values.
    """
    read: dict[int, Example] = {}
    non_finite: dict[str, int] = {}
    for batch in plan_batches([len(example) for example in examples], batch_tokens):
        rows = [examples[i] for i in batch]
        for index, example, hidden_states in zip(batch, rows, read_batch(teacher, rows), strict=True):
            bad = {layer: int((~values.isfinite()).sum()) for layer, values in hidden_states.items()}
            if not any(bad.values()):
                read[index] = _cached(example, hidden_states)
            elif skip_non_finite:
                non_finite[example.row_id] = len(example)
            else:
                layer, count = next((layer, count) for layer, count in bad.items() if count)
                raise RunError(
                    f"row {example.row_id}, layer {layer}: the teacher gives {count} values that are not finite; "
                    "leave such rows out with --skip-non-finite, or try --dtype fp32"
                )
        progress(sum(len(example) for example in rows))
    return ShardStates([read[index] for index in sorted(read)], non_finite)


def read_batch(teacher: Teacher, rows: Sequence[TokenizedExample]) -> list[dict[int, torch.Tensor]]:
    """Hidden states `[T, d_teacher]` in bfloat16, on the host, of each example and layer, from one forward pass."""
    ids_BT, mask_BT = _padded(rows)
    states = teacher.hidden_states(ids_BT.to(teacher.device), mask_BT.to(teacher.device))
    states_BTD = {layer: hidden.to("cpu", torch.bfloat16) for layer, hidden in states.items()}
    return [{layer: hidden[row, : len(example)] for layer, hidden in states_BTD.items()} for row, example in enumerate(rows)]


def _cached(example: TokenizedExample, hidden_states: dict[int, torch.Tensor]) -> Example:
    bits = {layer: values.contiguous().view(torch.uint16).numpy() for layer, values in hidden_states.items()}
    states = {layer: values.view(ml_dtypes.bfloat16) for layer, values in bits.items()}
    return Example(example.row_id, example.input_ids, example.loss_mask, states)


def _padded(rows: Sequence[TokenizedExample]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask `[B, T]`, padded on the right."""
    longest = max(len(row) for row in rows)
    ids_BT = np.zeros((len(rows), longest), np.int64)
    mask_BT = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row)] = row.input_ids
        mask_BT[index, : len(row)] = 1
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)

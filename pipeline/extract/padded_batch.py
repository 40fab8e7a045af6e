"""Forward passes over padded batches; hidden states return to the host in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract.token_run import TokenRun
from pipeline.teacher.model import Teacher
from pipeline.teacher.prefix_kv import EMPTY_PREFIX, PrefixKV, read_with_prefixes


def read_batch(teacher: Teacher, rows: Sequence[TokenizedExample]) -> list[dict[int, torch.Tensor]]:
    """Return each layer's hidden states `[T, d_teacher]` of whole examples."""
    states = _forward(teacher, [row.input_ids for row in rows], [EMPTY_PREFIX] * len(rows))
    return [
        {layer: hidden_BTD[row, : len(example)] for layer, hidden_BTD in states.items()}
        for row, example in enumerate(rows)
    ]


def read_runs(
    teacher: Teacher, runs: Sequence[TokenRun], prefixes: Sequence[PrefixKV]
) -> dict[int, torch.Tensor]:
    """Return each layer's hidden states `[B, T, d_teacher]` of runs after their prefixes."""
    if not any(map(len, runs)):
        empty_BTD = torch.zeros(len(runs), 0, teacher.width, dtype=torch.bfloat16)
        return dict.fromkeys(teacher.layers, empty_BTD)
    return _forward(teacher, [run.ids for run in runs], prefixes)


def on_host(states: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """Return hidden states on the host in bfloat16."""
    return {layer: hidden.to("cpu", torch.bfloat16) for layer, hidden in states.items()}


def _forward(
    teacher: Teacher, rows: Sequence[npt.NDArray[np.int32]], prefixes: Sequence[PrefixKV]
) -> dict[int, torch.Tensor]:
    ids_BT, mask_BT = _padded(rows)
    return on_host(read_with_prefixes(teacher, ids_BT, mask_BT, prefixes))


def _padded(rows: Sequence[npt.NDArray[np.int32]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask `[B, T]`, padded on the right."""
    longest = max(map(len, rows))
    ids_BT = np.zeros((len(rows), longest), np.int64)
    mask_BT = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        ids_BT[index, : len(row)] = row
        mask_BT[index, : len(row)] = 1
    return torch.from_numpy(ids_BT), torch.from_numpy(mask_BT)

"""Pad examples of different lengths to one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.batches.examples import Features
from pipeline.labels import IGNORE


def collate(rows: Sequence[Features]) -> dict[str, torch.Tensor]:
    """Return examples as a batch, padded on the right to the longest.

    Padding is identified by position, never by token id, because the end token may also be the
    padding token, and must be learned.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, T]` (-100 where there is no loss), and for each
        layer `n` either `hidden_states.n` `[B, T, d_teacher]`, or coded states: `coded_states.n`
        `[B, T, d_teacher]`, `token_scales.n` `[B, T]`, `exact_rows.n` `[K, 2]` (row of the batch,
        token) and `exact_states.n` `[K, d_teacher]`. The states of prompts have the length of the
        longest prompt, and a `states_mask` that is 0 for padding; `state_places` `[B, T]` are
        padded with -1.
    """
    labels = [torch.where(row["loss_mask"], row["input_ids"], IGNORE) for row in rows]
    for row_labels in labels:
        row_labels[0] = IGNORE  # nothing precedes the first token, so it cannot be predicted
    batch = {
        "input_ids": pad_sequence([row["input_ids"] for row in rows], batch_first=True),
        "attention_mask": pad_sequence(
            [torch.ones_like(row["input_ids"]) for row in rows], batch_first=True
        ),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
    }
    for name in rows[0]:
        kind = name.partition(".")[0]
        if kind == "state_places":
            batch[name] = pad_sequence(
                [row[name] for row in rows], batch_first=True, padding_value=-1
            )
        elif kind in ("hidden_states", "coded_states", "token_scales", "states_mask"):
            batch[name] = pad_sequence([row[name] for row in rows], batch_first=True)
        elif kind == "exact_rows":
            batch[name] = torch.cat(
                [
                    torch.stack([torch.full_like(row[name], b), row[name]], dim=1)
                    for b, row in enumerate(rows)
                ]
            )
        elif kind == "exact_states":
            batch[name] = torch.cat([row[name] for row in rows])
    return batch

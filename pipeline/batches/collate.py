"""Examples of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.batches.features import Features
from pipeline.labels import IGNORE


def collate(rows: Sequence[Features]) -> dict[str, torch.Tensor]:
    """Pad on the right to the longest example.

    Padding is told by position, never by token id: the end token may be the padding token too, and must be learned.

    Returns:
        `input_ids`, `attention_mask`, `labels` `[B, T]` (-100 where there is no loss), and `hidden_states`
        `[B, T, d_teacher]` where the rows have them; where they have coded ones, `coded_states` `[B, T, d_teacher]`,
        `token_scales` `[B, T]`, `exact_rows` `[K, 2]` (row of the batch, token) and `exact_states` `[K, d_teacher]`.
    """
    labels = [torch.where(row["loss_mask"], row["input_ids"], IGNORE) for row in rows]
    for row_labels in labels:
        row_labels[0] = IGNORE  # nothing comes before the first token, so nothing can predict it
    batch = {
        "input_ids": pad_sequence([row["input_ids"] for row in rows], batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row["input_ids"]) for row in rows], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
    }
    if "hidden_states" in rows[0]:
        batch["hidden_states"] = pad_sequence([row["hidden_states"] for row in rows], batch_first=True)
    if "coded_states" in rows[0]:
        batch["coded_states"] = pad_sequence([row["coded_states"] for row in rows], batch_first=True)
    if "token_scales" in rows[0]:
        batch["token_scales"] = pad_sequence([row["token_scales"] for row in rows], batch_first=True)
    if "exact_rows" in rows[0]:
        places = [torch.stack([torch.full_like(row["exact_rows"], b), row["exact_rows"]], dim=1) for b, row in enumerate(rows)]
        batch["exact_rows"] = torch.cat(places)
        batch["exact_states"] = torch.cat([row["exact_states"] for row in rows])
    return batch

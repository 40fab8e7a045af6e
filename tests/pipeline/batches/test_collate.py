"""Batches of padded examples."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.collate import collate
from pipeline.batches.examples import Features
from pipeline.labels import IGNORE


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_padding_is_marked_by_position_not_by_token(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows: list[Features] = [
        {
            "row_id": str(index),
            # 0 pads, and is also a token.
            "input_ids": torch.randint(0, 3, (length,), generator=generator),
            "loss_mask": torch.ones(length, dtype=torch.bool),
            "hidden_states.0": torch.randn(length, 4, generator=generator).bfloat16(),
        }
        for index, length in enumerate(lengths)
    ]
    batch = collate(rows)
    for index, row in enumerate(rows):
        length = len(row["input_ids"])
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (
            max(lengths) - length
        )
        assert torch.equal(batch["labels"][index, 1:length], row["input_ids"][1:])
        assert batch["labels"][index, 0] == IGNORE
        assert (batch["labels"][index, length:] == IGNORE).all()
        assert torch.equal(batch["hidden_states.0"][index, :length], row["hidden_states.0"])

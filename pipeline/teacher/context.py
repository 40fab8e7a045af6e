"""What a teacher keeps of tokens that it has read, so that many texts can go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class Context:
    """Keys and values `[1, heads, P, d_head]` of each of the teacher's blocks after `P` tokens."""

    keys_values: list[tuple[torch.Tensor, torch.Tensor]]

    def __len__(self) -> int:
        return self.keys_values[0][0].shape[2] if self.keys_values else 0


NOTHING = Context([])
"""Before the first token."""


@torch.inference_mode()
def read_context(teacher: Teacher, ids_1T: torch.Tensor, before: Context) -> tuple[dict[int, torch.Tensor], Context]:
    """Read some tokens alone: their hidden states `[1, T, d_teacher]` of each layer, and what to go on from after them."""
    past = _key_value_cache([before])
    mask_1K = torch.ones(1, len(before) + ids_1T.shape[1], dtype=torch.long, device=teacher.device)
    states = teacher.hidden_states(ids_1T.to(teacher.device), mask_1K, past)
    layers: list[Any] = past.layers
    return states, Context([(layer.keys, layer.values) for layer in layers])


@torch.inference_mode()
def read_after(
    teacher: Teacher, ids_BT: torch.Tensor, mask_BT: torch.Tensor, contexts: Sequence[Context]
) -> dict[int, torch.Tensor]:
    """Hidden states `[B, T, d_teacher]` of each layer, of tokens that go on from contexts of any lengths, one a row.

    Args:
        ids_BT: token ids, padded on the right.
        mask_BT: 1 for tokens, 0 for padding.
        contexts: what comes before each row.
    """
    longest = max(map(len, contexts))
    if not longest:
        return teacher.hidden_states(ids_BT.to(teacher.device), mask_BT.to(teacher.device))
    before_BP = torch.zeros(len(contexts), longest, dtype=mask_BT.dtype)
    for row, context in enumerate(contexts):
        before_BP[row, longest - len(context) :] = 1
    mask_BK = torch.cat([before_BP, mask_BT], dim=1)
    return teacher.hidden_states(ids_BT.to(teacher.device), mask_BK.to(teacher.device), _key_value_cache(contexts))


def _key_value_cache(contexts: Sequence[Context]) -> DynamicCache:
    """Contexts side by side, padded on the left, as a key-value cache of their own."""
    cache = DynamicCache()
    longest = max(map(len, contexts))
    filled = next((context for context in contexts if len(context)), NOTHING)
    for block, (some_keys, some_values) in enumerate(filled.keys_values):
        keys, values = [], []
        for context in contexts:
            one_keys, one_values = context.keys_values[block] if len(context) else (some_keys[:, :, :0], some_values[:, :, :0])
            missing = longest - len(context)
            keys.append(pad(one_keys, (0, 0, missing, 0)))
            values.append(pad(one_values, (0, 0, missing, 0)))
        cache.update(torch.cat(keys), torch.cat(values), block)
    return cache

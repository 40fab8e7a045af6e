"""What a teacher keeps of tokens that it has read, so that many texts can go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from pipeline.teacher.model import Teacher


@dataclass(frozen=True)
class PrefixKV:
    """Keys and values `[1, heads, P, d_head]` of each of the teacher's blocks after `P` tokens."""

    keys_values: list[tuple[torch.Tensor, torch.Tensor]]

    def __len__(self) -> int:
        return self.keys_values[0][0].shape[2] if self.keys_values else 0


EMPTY_PREFIX = PrefixKV([])
"""Before the first token."""


@torch.inference_mode()
def extend_prefix(
    teacher: Teacher, ids_1T: torch.Tensor, before: PrefixKV
) -> tuple[dict[int, torch.Tensor], PrefixKV]:
    """Read some tokens alone: their hidden states `[1, T, d_teacher]` of each layer, and what to go
    on from after them."""
    past = DynamicCache()
    for block, (keys, values) in enumerate(before.keys_values):
        past.update(keys, values, block)
    mask_1K = torch.ones(1, len(before) + ids_1T.shape[1], dtype=torch.long, device=teacher.device)
    states = teacher.hidden_states(ids_1T.to(teacher.device), mask_1K, past)
    layers: list[Any] = past.layers
    return states, PrefixKV([(layer.keys, layer.values) for layer in layers])


@torch.inference_mode()
def read_with_prefixes(
    teacher: Teacher, ids_BT: torch.Tensor, mask_BT: torch.Tensor, contexts: Sequence[PrefixKV]
) -> dict[int, torch.Tensor]:
    """Hidden states `[B, T, d_teacher]` of each layer, of tokens that go on from contexts of any
    lengths, one a row.

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
    blocks = range(max(len(context.keys_values) for context in contexts))
    past = Cache(layers=[_BlockContexts(contexts, block, longest) for block in blocks])
    return teacher.hidden_states(ids_BT.to(teacher.device), mask_BK.to(teacher.device), past)


class _BlockContexts(DynamicLayer):
    """One block's keys and values of the contexts of a batch, put side by side when the block asks
    for them and not kept: a batch holds those of one block at a time, and a row that goes on from a
    long text is not much dearer than another."""

    def __init__(self, contexts: Sequence[PrefixKV], block: int, longest: int) -> None:
        super().__init__()
        self._contexts, self._block, self._longest = contexts, block, longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[B, heads, P + T, d_head]` of the contexts, padded on the left, and of
        the tokens now read."""
        return self._before(0, key_states), self._before(1, value_states)

    def get_seq_length(self) -> int:
        """Tokens before those that are read now."""
        return self._longest

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys there are, and where the first of them stands."""
        return self._longest + query_length, 0

    def _before(self, which: int, read_BHTK: torch.Tensor) -> torch.Tensor:
        rows, heads, tokens, width = read_BHTK.shape
        whole_BHTK = read_BHTK.new_zeros(rows, heads, self._longest + tokens, width)
        whole_BHTK[:, :, self._longest :] = read_BHTK
        for row, context in enumerate(self._contexts):
            if len(context):
                whole_BHTK[row, :, self._longest - len(context) : self._longest] = (
                    context.keys_values[self._block][which][0]
                )
        return whole_BHTK

"""Keys and values of shared prefixes, from which the teacher computes many continuations."""

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
    """Keys and values `[1, heads, P, d_head]` of each block for a prefix of `P` tokens."""

    blocks: list[tuple[torch.Tensor, torch.Tensor]]

    def __len__(self) -> int:
        return self.blocks[0][0].shape[2] if self.blocks else 0


EMPTY_PREFIX = PrefixKV([])
"""The prefix of no tokens."""


@torch.inference_mode()
def extend_prefix(
    teacher: Teacher, ids_1T: torch.Tensor, before: PrefixKV
) -> tuple[dict[int, torch.Tensor], PrefixKV]:
    """Return the hidden states `[1, T, d_teacher]` per layer of further tokens, and the prefix."""
    past = DynamicCache()
    for block, (keys, values) in enumerate(before.blocks):
        past.update(keys, values, block)
    mask_1K = torch.ones(1, len(before) + ids_1T.shape[1], dtype=torch.long, device=teacher.device)
    states = teacher.hidden_states(ids_1T.to(teacher.device), mask_1K, past)
    layers: list[Any] = past.layers
    return states, PrefixKV([(layer.keys, layer.values) for layer in layers])


@torch.inference_mode()
def read_with_prefixes(
    teacher: Teacher, ids_BT: torch.Tensor, mask_BT: torch.Tensor, prefixes: Sequence[PrefixKV]
) -> dict[int, torch.Tensor]:
    """Return the hidden states `[B, T, d_teacher]` per layer of a batch of continuations.

    Args:
        teacher: with `continues_from_kv`, if any prefix has tokens.
        ids_BT: token ids, padded on the right.
        mask_BT: 1 for tokens, 0 for padding.
        prefixes: of each row, of any lengths.
    """
    longest = max(map(len, prefixes))
    if not longest:
        return teacher.hidden_states(ids_BT.to(teacher.device), mask_BT.to(teacher.device))
    prefix_mask_BP = torch.zeros(len(prefixes), longest, dtype=mask_BT.dtype)
    for row, prefix in enumerate(prefixes):
        prefix_mask_BP[row, longest - len(prefix) :] = 1
    mask_BK = torch.cat([prefix_mask_BP, mask_BT], dim=1)
    blocks = range(max(len(prefix.blocks) for prefix in prefixes))
    past = Cache(layers=[_PrefixLayer(prefixes, block, longest) for block in blocks])
    return teacher.hidden_states(ids_BT.to(teacher.device), mask_BK.to(teacher.device), past)


class _PrefixLayer(DynamicLayer):
    """One block's part of a key-value cache, assembled from the prefixes when the block runs.

    It is not kept, so a batch holds the padded prefixes of only one block at a time.
    """

    def __init__(self, prefixes: Sequence[PrefixKV], block: int, longest: int) -> None:
        super().__init__()
        self._prefixes, self._block, self._longest = prefixes, block, longest

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values `[B, heads, P + T, d_head]` of left-padded prefixes and tokens."""
        return self._with_prefixes(0, key_states), self._with_prefixes(1, value_states)

    def get_seq_length(self) -> int:
        """Return the length of the padded prefixes."""
        return self._longest

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys, and the offset of the first one."""
        return self._longest + query_length, 0

    def _with_prefixes(self, which: int, new_BHTK: torch.Tensor) -> torch.Tensor:
        rows, heads, tokens, width = new_BHTK.shape
        all_BHTK = new_BHTK.new_zeros(rows, heads, self._longest + tokens, width)
        all_BHTK[:, :, self._longest :] = new_BHTK
        for row, prefix in enumerate(self._prefixes):
            if len(prefix):
                start = self._longest - len(prefix)
                all_BHTK[row, :, start : self._longest] = prefix.blocks[self._block][which][0]
        return all_BHTK

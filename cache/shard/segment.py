"""A segment read from a shard: tokens with loss mask and coded hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates, concatenate


@dataclass(frozen=True)
class CodedSegment:
    """Tokens with their loss mask and coded hidden states."""

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: dict[int, CodedStates]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def bytes(self) -> int:
        """Size in memory, without the few tokens kept exactly."""
        return 5 * len(self) + sum(coded.values.nbytes for coded in self.hidden_states.values())


def join_segments(segments: Sequence[CodedSegment]) -> CodedSegment:
    """Return consecutive segments as one."""
    return CodedSegment(
        np.concatenate([segment.input_ids for segment in segments]),
        np.concatenate([segment.loss_mask for segment in segments]),
        {
            layer: concatenate([segment.hidden_states[layer] for segment in segments])
            for layer in segments[0].hidden_states
        },
    )

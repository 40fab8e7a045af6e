"""One cached example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import CodedStates


@dataclass(frozen=True)
class Example:
    """An example with its hidden states.

    Attributes:
        row_id: the row's index in its data set, as a string.
        input_ids: `[T]` int32 token ids.
        loss_mask: `[T]` bool, True where the student learns to predict the token.
        hidden_states: by layer, in the cache's order, `[T, d_teacher]` `ml_dtypes.bfloat16`.
    """

    row_id: str
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: dict[int, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class CodedExample:
    """An example whose hidden states are still coded.

    Attributes:
        row_id, input_ids, loss_mask: as in `Example`.
        hidden_states: by layer, in the cache's order, coded states of `T` tokens.
    """

    row_id: str
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: dict[int, CodedStates]

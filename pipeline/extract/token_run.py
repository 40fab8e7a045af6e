"""The tokens that become one segment of a shard."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

from cache.shard.content import NO_PREFIX, Segment
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract.sharing import SharingPlan


@dataclass(frozen=True)
class TokenRun:
    """Tokens `start` to `stop` of an example.

    Attributes:
        after: number of the shared prefix that precedes them; -1 if none does.
        number: their own number if they are a shared prefix, otherwise -1.
    """

    example: TokenizedExample
    start: int
    stop: int
    after: int
    number: int = NO_PREFIX

    @classmethod
    def of_prefix(
        cls, number: int, examples: list[TokenizedExample], sharing: SharingPlan
    ) -> TokenRun:
        """Return the tokens that a prefix adds to the one before it."""
        prefix = sharing.prefixes[number]
        return cls(examples[prefix.example], prefix.start, prefix.stop, prefix.after, number)

    @classmethod
    def of_example(
        cls, index: int, examples: list[TokenizedExample], sharing: SharingPlan
    ) -> TokenRun:
        """Return the tokens that an example does not share."""
        example = examples[index]
        return cls(example, sharing.shared_tokens(index), len(example), sharing.of_example[index])

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """Token ids `[T]`."""
        return self.example.input_ids[self.start : self.stop]

    def segment(self, hidden_states: dict[int, torch.Tensor]) -> Segment:
        """Return the segment with its hidden states `[T, d_teacher]` in bfloat16."""
        states = {
            layer: hidden_TD.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
            for layer, hidden_TD in hidden_states.items()
        }
        loss_mask = self.example.loss_mask[self.start : self.stop]
        return Segment(self.ids, loss_mask, states, self.after, self.number)

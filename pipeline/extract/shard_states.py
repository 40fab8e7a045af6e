"""The hidden states of a shard, without examples whose states are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cache.codecs import Codec
from cache.shard.content import Segment, ShardContent, shard_of_segments
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.errors import RunError
from pipeline.extract.sharing import SharingPlan


@dataclass(frozen=True)
class ShardStates:
    """The teacher's output for a shard.

    Attributes:
        row_ids, texts, lengths: of the examples, in the order of the data set.
        segments: the stored prefixes, then the rest of each example.
        non_finite: tokens by row id of examples left out because their states are not finite.
        batch_tokens: most tokens of the padded batches.
    """

    row_ids: list[str]
    texts: list[str]
    lengths: list[int]
    segments: list[Segment]
    non_finite: dict[str, int]
    batch_tokens: int

    def coded(self, codecs: dict[int, Codec]) -> ShardContent:
        """Return the shard as it is stored."""
        return shard_of_segments(self.row_ids, self.texts, self.lengths, self.segments, codecs)


class FiniteStates:
    """Assembles shards from segments, and tracks prefixes whose states are not finite.

    Args:
        sharing: the prefixes.
        skip: leave an example out if its states are not finite, instead of raising.
    """

    def __init__(self, sharing: SharingPlan, *, skip: bool) -> None:
        self._sharing, self._skip = sharing, skip
        self._faults: dict[int, str] = {}

    def leave_out(self, prefixes: Iterable[int]) -> None:
        """Mark prefixes that other workers computed without finite states."""
        fault = "its shared prefix: the teacher gives values that are not finite"
        self._faults |= dict.fromkeys(prefixes, fault)

    def assemble(
        self,
        prefixes: dict[int, Segment],
        examples: Iterable[tuple[TokenizedExample, Segment]],
        stored: Sequence[int],
        batch_tokens: int,
    ) -> ShardStates:
        """Return a shard of the finite segments.

        Args:
            prefixes: by number.
            examples: with the segment of each.
            stored: numbers of the prefixes stored in the shard.
            batch_tokens: recorded in the shard.

        Raises:
            RunError: an example's states are not finite; names its row, layer and count.
        """
        for number in sorted(prefixes):
            if fault := self._fault(prefixes[number]):
                self._faults[number] = fault
        kept, non_finite = [], {}
        for example, segment in examples:
            fault = self._fault(segment)
            if fault is None:
                kept.append((example, segment))
            elif self._skip:
                non_finite[example.row_id] = len(example)
            else:
                raise RunError(
                    f"row {example.row_id}, {fault}; leave such rows out with --skip-non-finite, or"
                    " try --dtype fp32"
                )
        finite = [prefixes[number] for number in stored if number not in self._faults]
        return ShardStates(
            [example.row_id for example, _ in kept],
            [example.text for example, _ in kept],
            [len(example) for example, _ in kept],
            finite + [segment for _, segment in kept],
            non_finite,
            batch_tokens,
        )

    def _fault(self, segment: Segment) -> str | None:
        """Return what is not finite: the segment, or a prefix before it."""
        for number in self._sharing.path(segment.after):
            if number in self._faults:
                return self._faults[number]
        for layer, hidden_TD in segment.hidden_states.items():
            if count := int((~np.isfinite(hidden_TD)).sum()):
                return f"layer {layer}: the teacher gives {count} values that are not finite"
        return None

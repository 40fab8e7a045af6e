"""The content of a shard: segments, with the coded hidden states of all tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.codecs import Codec, CodedStates
from cache.errors import CacheError
from cache.example import Example

NO_PREFIX = -1


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens that a shard stores once: a shared prefix, or the rest of an example.

    Attributes:
        input_ids, loss_mask: `[T]`; empty for an example that is a prefix.
        hidden_states: by layer, `[T, d_teacher]` bfloat16.
        after: number of the preceding prefix; -1 for none.
        number: of this prefix, from 0 over the whole cache; -1 for the rest of an example.
    """

    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: Mapping[int, npt.NDArray[Any]]
    after: int = NO_PREFIX
    number: int = NO_PREFIX

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class ShardContent:
    """All segments of a shard end to end: its prefixes, then the rest of each example.

    Attributes:
        row_ids: row id of each example.
        texts: text of each example, the source of its tokens; "" for none.
        lengths: `[examples]` int64, tokens of each example, its prefix included.
        stored: `[segments]` int64, tokens of each segment.
        numbers: `[segments]` int64, number of the prefix; -1 for the rest of an example.
        prefixes: `[segments]` int64, number of the prefix preceding each segment; -1 for none.
        input_ids: `[tokens]` int32.
        loss_mask: `[tokens]` bool.
        hidden_states: by layer, the coded states of all tokens, or the stored array.
    """

    row_ids: list[str]
    texts: list[str]
    lengths: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]
    prefixes: npt.NDArray[np.int64]
    input_ids: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.bool_]
    hidden_states: Mapping[int, CodedStates | npt.NDArray[Any]]


def shard_of_segments(
    row_ids: Sequence[str],
    texts: Sequence[str],
    lengths: Sequence[int],
    segments: Sequence[Segment],
    codecs: Mapping[int, Codec],
) -> ShardContent:
    """Code the states of segments, and return them as the content of a shard.

    Args:
        row_ids, texts: of each example.
        lengths: of each example, its prefix included.
        segments: prefixes in the order of their numbers, then one per example.
        codecs: of each layer.
    """
    count = np.int64
    return ShardContent(
        list(row_ids),
        list(texts),
        np.fromiter(lengths, count, len(lengths)),
        np.fromiter(map(len, segments), count, len(segments)),
        np.fromiter((segment.number for segment in segments), count, len(segments)),
        np.fromiter((segment.after for segment in segments), count, len(segments)),
        np.concatenate(
            [np.zeros(0, np.int32), *(segment.input_ids for segment in segments)]
        ).astype(np.int32, copy=False),
        np.concatenate(
            [np.zeros(0, np.bool_), *(segment.loss_mask for segment in segments)]
        ).astype(np.bool_, copy=False),
        {
            layer: codec.encode(
                np.concatenate([segment.hidden_states[layer] for segment in segments])
            )
            for layer, codec in codecs.items()
            if segments
        },
    )


def shard_of_examples(examples: Sequence[Example], codecs: Mapping[int, Codec]) -> ShardContent:
    """Return examples without shared prefixes or texts as the content of a shard.

    Raises:
        CacheError: an example has no tokens or no row id.
    """
    for example in examples:
        if not len(example) or not example.row_id:
            raise CacheError(
                f"example {example.row_id!r} of {len(example)} tokens: an example needs tokens and"
                " a row id"
            )
    segments = [
        Segment(example.input_ids, example.loss_mask, example.hidden_states) for example in examples
    ]
    row_ids = [example.row_id for example in examples]
    return shard_of_segments(
        row_ids, [""] * len(examples), list(map(len, examples)), segments, codecs
    )

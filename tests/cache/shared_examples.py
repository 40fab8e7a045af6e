"""Examples with shared prefixes, cut into segments, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from cache import Example, write_cache
from cache.codecs import Codec
from cache.shard.content import NO_PREFIX, Segment, shard_of_segments
from tests.cache.examples import make_attachments, make_codecs, make_manifest

Prefix = tuple[int, int]
"""Number of the preceding prefix, and the number of its own tokens."""
Cut = tuple[int, int]
"""Number of an example's prefix, and the number of its own tokens."""

PREFIXES: list[Prefix] = [(-1, 6), (0, 4), (-1, 5), (1, 3)]
SHARDS: list[list[Cut]] = [
    [(0, 3), (1, 2), (-1, 7)],  # stores the prefixes 0 and 1
    [(1, 0), (2, 0), (1, 0)],  # stores prefix 2: complete duplicates, and a prefix of others
    [(2, 0), (3, 1), (3, 0), (0, 2), (2, 5)],  # stores prefix 3, which follows 1
    [(-1, 4), (1, 1)],  # stores none
]


@dataclass(frozen=True)
class SharedExamples:
    """The same examples, whole and in segments.

    Attributes:
        whole: the examples of each shard, as a reader returns them.
        segments: the segments of each shard, prefixes first.
        cuts: the cut of each example, by shard.
        prefixes: by number.
    """

    whole: list[list[Example]]
    segments: list[list[Segment]]
    cuts: list[list[Cut]]
    prefixes: list[Prefix]

    def path(self, number: int) -> list[int]:
        return [] if number == NO_PREFIX else [*self.path(self.prefixes[number][0]), number]

    def reading(self, number: int) -> list[int]:
        """Return the indices of the examples that begin with a prefix."""
        cuts = [cut for shard in self.cuts for cut in shard]
        return [index for index, (prefix, _) in enumerate(cuts) if number in self.path(prefix)]

    def write(self, root: Path, container: str = "zarr", codec: str = "bf16") -> Path:
        codecs = make_codecs(self.whole, codec)
        with write_cache(
            root, make_manifest(self.whole, container, codecs), make_attachments(root, codecs)
        ) as writer:
            for shard in writer.missing_shards():
                examples = self.whole[shard]
                ids, lengths = [example.row_id for example in examples], list(map(len, examples))
                writer.publish(
                    shard,
                    shard_of_segments(
                        ids,
                        [f"ü of {row_id}" for row_id in ids],
                        lengths,
                        self.segments[shard],
                        codecs,
                    ),
                )
        return root

    def codecs(self, codec: str) -> dict[int, Codec]:
        return make_codecs(self.whole, codec)


def make_shared(
    prefixes: Sequence[Prefix] = PREFIXES,
    shards: Sequence[Sequence[Cut]] = SHARDS,
    *,
    hidden_size: int = 8,
    layers: Sequence[int] = (-1, 0),
    seed: int = 0,
    far: int = 0,
) -> SharedExamples:
    """Return random examples with these cuts; every `far`-th token is 500 times as long.

    Prefixes that no example begins with are left out.
    """
    rng = np.random.default_rng(seed)

    def states(length: int) -> npt.NDArray[Any]:
        values = rng.normal(size=(length, hidden_size))
        if far:
            values[far - 1 :: far] *= 500
        return values.astype(ml_dtypes.bfloat16)

    def segment(after: int, length: int, number: int = NO_PREFIX) -> Segment:
        ids, mask = rng.integers(0, 1000, length).astype(np.int32), rng.random(length) < 0.5
        return Segment(ids, mask, {layer: states(length) for layer in layers}, after, number)

    stored = [segment(after, length, number) for number, (after, length) in enumerate(prefixes)]
    made = SharedExamples([], [], [list(shard) for shard in shards], list(prefixes))
    seen: set[int] = set()
    for shard, cuts in enumerate(shards):
        needed = {number for prefix, _ in cuts for number in made.path(prefix)}
        own = [segment(prefix, length) for prefix, length in cuts]
        made.segments.append([stored[number] for number in sorted(needed - seen)] + own)
        made.whole.append(
            [
                _joined(
                    f"row-{shard}-{index}",
                    [stored[number] for number in made.path(rest.after)] + [rest],
                )
                for index, rest in enumerate(own)
            ]
        )
        seen |= needed
    return made


def _joined(row_id: str, segments: Sequence[Segment]) -> Example:
    return Example(
        row_id,
        np.concatenate([segment.input_ids for segment in segments]),
        np.concatenate([segment.loss_mask for segment in segments]),
        {
            layer: np.concatenate([segment.hidden_states[layer] for segment in segments]).astype(
                ml_dtypes.bfloat16
            )
            for layer in segments[0].hidden_states
        },
    )

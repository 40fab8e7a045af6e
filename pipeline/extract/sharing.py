"""Leading tokens that examples share: a pure function of the examples' tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cache.shard.content import NO_PREFIX
from pipeline.data.tokenized_dataset import TokenizedExample

_SHORTEST = 8
"""Fewest tokens that a prefix adds to the one before it, to be worth a forward pass."""
_LEAST_SAVED = 128
"""Fewest tokens that a prefix saves over all examples, to be worth a forward pass."""


@dataclass(frozen=True)
class SharedPrefix:
    """Tokens that several examples share, after a shorter shared prefix or at the start.

    Attributes:
        after: number of the shorter prefix; -1 if there is none.
        example: index of the first example with this prefix.
        start, stop: the tokens are tokens `start` to `stop` of that example.
        is_stem: an example has more tokens after it, so the teacher continues from it.
    """

    after: int
    example: int
    start: int
    stop: int
    is_stem: bool

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class SharingPlan:
    """The shared prefixes of a data set.

    Attributes:
        prefixes: by number. A prefix is stored in the shard of the first example that has it, and
            its number is larger than that of the prefix before it.
        of_example: number of each example's longest prefix; -1 if it has none.
    """

    prefixes: list[SharedPrefix]
    of_example: list[int]

    def path(self, number: int) -> list[int]:
        """Return a prefix and all prefixes before it, shortest first; empty for -1."""
        path = []
        while number != NO_PREFIX:
            path.append(number)
            number = self.prefixes[number].after
        return path[::-1]

    def shared_tokens(self, example: int) -> int:
        """Return how many leading tokens of an example are shared."""
        number = self.of_example[example]
        return 0 if number == NO_PREFIX else self.prefixes[number].stop

    def stored_with(self, examples: Sequence[int]) -> list[int]:
        """Return the prefixes stored in the shard of these examples, ascending."""
        in_shard = set(examples)
        needed = {number for example in examples for number in self.path(self.of_example[example])}
        return sorted(number for number in needed if self.prefixes[number].example in in_shard)

    def stored_lengths(self, examples: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """Return the tokens of each segment of a shard, prefixes first.

        Args:
            examples: indices of the shard's examples.
            lengths: all tokens of each of them.
        """
        prefixes = [len(self.prefixes[number]) for number in self.stored_with(examples)]
        return prefixes + [
            length - self.shared_tokens(example)
            for example, length in zip(examples, lengths, strict=True)
        ]


def share_nothing(count: int) -> SharingPlan:
    """Return the plan that stores each of `count` examples whole."""
    return SharingPlan([], [NO_PREFIX] * count)


def plan_sharing(examples: Sequence[TokenizedExample]) -> SharingPlan:
    """Return the prefixes worth sharing; complete duplicates always are.

    Tokens are equal if their ids and loss masks are, so examples share nothing after the first
    token that only one of them learns.
    """
    keys = [_key(example) for example in examples]
    order = sorted(range(len(keys)), key=lambda index: (keys[index], index))
    common = [_common_tokens(keys[one], keys[other]) for one, other in pairwise(order)]
    paths: dict[int, list[_Node]] = {index: [] for index in range(len(examples))}
    for node in _worth_sharing(common, [len(examples[index]) for index in order]):
        for place in range(node.first, node.stop):
            paths[order[place]].append(node)
    numbers: dict[_Node, int] = {}
    prefixes: list[SharedPrefix] = []
    of_example = []
    for index in range(len(examples)):
        after, start = NO_PREFIX, 0
        for node in paths[index]:
            if node not in numbers:
                numbers[node] = len(prefixes)
                prefixes.append(SharedPrefix(after, index, start, node.depth, node.is_stem))
            after, start = numbers[node], node.depth
        of_example.append(after)
    return SharingPlan(prefixes, of_example)


@dataclass(frozen=True)
class _Node:
    """The `depth` leading tokens of examples `first` to `stop` in the order of their tokens."""

    first: int
    stop: int
    depth: int
    is_stem: bool


def _worth_sharing(common: Sequence[int], lengths: Sequence[int]) -> Iterator[_Node]:
    """Yield the nodes to keep, each after those that contain it.

    Args:
        common: as for `_runs`.
        lengths: tokens of each example, in the order of their tokens.
    """
    kept: list[_Node] = []
    for first, stop, depth in _runs(common):
        while kept and kept[-1].stop <= first:
            kept.pop()
        own = depth - (kept[-1].depth if kept else 0)
        is_stem = any(length > depth for length in lengths[first:stop])
        duplicates = sum(length == depth for length in lengths[first:stop])
        saved = (stop - first - 1) * own
        if (own and duplicates > 1) or (own >= _SHORTEST and saved >= _LEAST_SAVED):
            node = _Node(first, stop, depth, is_stem)
            kept.append(node)
            yield node


def _runs(common: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the largest runs (first, stop, depth) of examples with `depth` common tokens.

    A run comes after those that contain it.

    Args:
        common: tokens that each example shares with the next, in the order of their tokens.
    """
    runs, opened = [], [(0, 0)]  # depth and first example of each run whose end is not reached
    for place, depth in enumerate([*common, 0], start=1):
        first = place - 1
        while opened[-1][0] > depth:
            deeper, first = opened.pop()
            runs.append((first, place, deeper))
        if opened[-1][0] < depth:
            opened.append((depth, first))
    return sorted(runs, key=lambda run: (run[0], -run[1], run[2]))


def _key(example: TokenizedExample) -> bytes:
    """Return the tokens with their loss mask as bytes of the same order."""
    return (example.input_ids.astype(np.uint32) * 2 + example.loss_mask).astype(">u4").tobytes()


def _common_tokens(one: bytes, other: bytes) -> int:
    """Return how many leading tokens two examples share, given their keys."""
    length = min(len(one), len(other)) // 4
    a, b = (np.frombuffer(key, ">u4", length) for key in (one, other))
    differing: npt.NDArray[np.intp] = np.flatnonzero(a != b)
    return int(differing[0]) if len(differing) else length

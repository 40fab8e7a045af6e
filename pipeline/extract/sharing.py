"""Which leading tokens examples share, found at token level: a pure function of the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cache.shard.content import NO_PREFIX
from pipeline.data.tokenized_dataset import TokenizedExample

_SHORTEST = 8
"""Tokens that a prefix must add to the one before it: shorter ones are not worth a read of their
own."""
_LEAST_SAVED = 128
"""Tokens that a prefix must save over all examples: less is not worth a pass of the teacher of its
own."""


@dataclass(frozen=True)
class SharedPrefix:
    """Leading tokens that several examples share.

    Attributes:
        after: number of the shorter prefix that it begins with; -1 where there is none.
        example: index of the first example that begins with it.
        start, stop: its own tokens are that example's tokens `start` to `stop`.
        is_stem: more tokens come after it in some example, so the teacher goes on from it.
    """

    after: int
    example: int
    start: int
    stop: int
    is_stem: bool


@dataclass(frozen=True)
class SharingPlan:
    """What is shared by whom.

    Attributes:
        prefixes: by their numbers; a prefix is stored in the shard of the first example that begins
            with it, and whatever it begins with itself has a smaller number.
        of_example: for each example, the number of the longest prefix that it begins with; -1 where
            there is none.
    """

    prefixes: list[SharedPrefix]
    of_example: list[int]

    def path(self, number: int) -> list[int]:
        """Numbers of the prefixes that make up a prefix, from the first to itself."""
        path = []
        while number != NO_PREFIX:
            path.append(number)
            number = self.prefixes[number].after
        return path[::-1]

    def before(self, example: int) -> int:
        """How many of an example's tokens are shared."""
        number = self.of_example[example]
        return 0 if number == NO_PREFIX else self.prefixes[number].stop

    def stored_with(self, examples: Sequence[int]) -> list[int]:
        """Numbers of the prefixes that are stored in the shard of these examples, ascending."""
        held = set(examples)
        needed = {number for example in examples for number in self.path(self.of_example[example])}
        return sorted(number for number in needed if self.prefixes[number].example in held)

    def stored_lengths(self, examples: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """Tokens of the segments of the shard of these examples, whose whole lengths are given:
        prefixes first."""
        prefixes = [self.prefixes[number] for number in self.stored_with(examples)]
        own = [
            length - self.before(example) for example, length in zip(examples, lengths, strict=True)
        ]
        return [prefix.stop - prefix.start for prefix in prefixes] + own


def share_nothing(count: int) -> SharingPlan:
    """The plan that stores each of `count` examples whole."""
    return SharingPlan([], [NO_PREFIX] * count)


def plan_sharing(examples: Sequence[TokenizedExample]) -> SharingPlan:
    """Find the leading tokens worth sharing; whole duplicates always are.

    A token is its id and its loss mask: where the same text is to be learned in one example and not
    in the other, nothing is shared from there on."""
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
    """`depth` tokens that the examples `first` to `stop`, in the order of their tokens, begin
    with."""

    first: int
    stop: int
    depth: int
    is_stem: bool


def _worth_sharing(common: Sequence[int], lengths: Sequence[int]) -> Iterator[_Node]:
    """The nodes to keep, those nearer to the root first."""
    kept: list[_Node] = []
    for first, stop, depth in _nodes(common):
        while kept and kept[-1].stop <= first:
            kept.pop()
        own = depth - (kept[-1].depth if kept else 0)
        is_stem = any(length > depth for length in lengths[first:stop])
        duplicates = sum(length == depth for length in lengths[first:stop])
        if (own and duplicates > 1) or (
            own >= _SHORTEST and (stop - first - 1) * own >= _LEAST_SAVED
        ):
            node = _Node(first, stop, depth, is_stem)
            kept.append(node)
            yield node


def _nodes(common: Sequence[int]) -> list[tuple[int, int, int]]:
    """All runs (first, stop, depth) of sorted examples that share `depth` tokens and no more, the
    wider ones first.

    Args:
        common: tokens that each example shares with the next.
    """
    found, opened = [], [(0, 0)]  # (depth, first example) of the runs that are not at their end
    for place, depth in enumerate([*common, 0], start=1):
        first = place - 1
        while opened[-1][0] > depth:
            deeper, first = opened.pop()
            found.append((first, place, deeper))
        if opened[-1][0] < depth:
            opened.append((depth, first))
    return sorted(found, key=lambda run: (run[0], -run[1], run[2]))


def _key(example: TokenizedExample) -> bytes:
    """Tokens with their loss mask as bytes that sort as they do."""
    return (example.input_ids.astype(np.uint32) * 2 + example.loss_mask).astype(">u4").tobytes()


def _common_tokens(one: bytes, other: bytes) -> int:
    """How many leading tokens two examples share."""
    length = min(len(one), len(other)) // 4
    a, b = (np.frombuffer(key, ">u4", length) for key in (one, other))
    differing: npt.NDArray[np.intp] = np.flatnonzero(a != b)
    return int(differing[0]) if len(differing) else length

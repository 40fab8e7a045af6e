"""Plans of the work, as pure functions of the examples' lengths."""

from __future__ import annotations

from collections.abc import Sequence

MOST_PADDING = 0.05
"""Share of a batch's own tokens that may be computed beside them for nothing."""


def plan_shards(lengths: Sequence[int], shard_tokens: int) -> list[range]:
    """Cut the data set into runs of whole examples: a shard ends with the example that fills it to `shard_tokens` tokens."""
    shards: list[range] = []
    start = tokens = 0
    for index, length in enumerate(lengths):
        tokens += length
        if tokens >= shard_tokens:
            shards.append(range(start, index + 1))
            start, tokens = index + 1, 0
    if start < len(lengths):
        shards.append(range(start, len(lengths)))
    return shards


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group examples of like length, longest first, so that each padded batch has at most `batch_tokens` tokens.

    An example longer than that makes a batch of its own; so does one that would bring more padding than `MOST_PADDING`.
    """
    batches: list[list[int]] = []
    padded = real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batches[-1][0]] if batches else 0
        real += lengths[index]
        padded += longest
        if batches and padded <= batch_tokens and padded <= (1 + MOST_PADDING) * real:
            batches[-1].append(index)
        else:
            batches.append([index])
            real = padded = lengths[index]
    return batches

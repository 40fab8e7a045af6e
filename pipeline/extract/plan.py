"""Plans of the work, as pure functions of the examples' lengths."""

from __future__ import annotations

from collections.abc import Sequence


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

    An example longer than that makes a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches

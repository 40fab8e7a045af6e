"""Sizes of batches, and the division of examples into shards and batches."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.device import choose_device

MOST_PADDING = 0.05
"""Largest padding of a batch, as a share of its tokens."""
_CONTEXT_TOKENS = 8
"""Tokens of a prefix, of which only keys and values are kept, with the memory of one token read."""
_BATCH_TOKENS = {"cpu": 4096}
_LARGE_BATCH_TOKENS = 32768
"""Default sizes of batches in tokens: by device type, and of other devices."""


def most_batch_tokens(batch_tokens: int | None, device: str) -> int:
    """Return the most tokens of a padded batch: the option's value, or the device's default."""
    return batch_tokens or _BATCH_TOKENS.get(choose_device(device).type, _LARGE_BATCH_TOKENS)


def plan_shards(lengths: Sequence[int], shard_tokens: int) -> list[range]:
    """Return each shard's examples; the example that reaches `shard_tokens` is its last one."""
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


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, prefix_lengths: Sequence[int] | None = None
) -> list[list[int]]:
    """Return batches of runs of similar length, longest first.

    A run longer than `batch_tokens`, or one that would raise the padding above `MOST_PADDING`,
    starts a new batch.

    Args:
        lengths: tokens of each run.
        batch_tokens: most tokens of a padded batch.
        prefix_lengths: tokens before each run, whose keys and values are kept; an eighth of them
            counts. None: no run has any.
    """
    before = prefix_lengths or [0] * len(lengths)
    batches: list[list[int]] = []
    real = context = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], -before[i], i)):
        longest, rows = (lengths[batches[-1][0]], len(batches[-1]) + 1) if batches else (0, 1)
        real, context = real + lengths[index], max(context, before[index])
        size = rows * (longest + -(-context // _CONTEXT_TOKENS))
        if batches and size <= batch_tokens and rows * longest <= (1 + MOST_PADDING) * real:
            batches[-1].append(index)
        else:
            batches.append([index])
            real, context = lengths[index], before[index]
    return batches

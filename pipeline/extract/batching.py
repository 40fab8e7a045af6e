"""Plans of the work, as pure functions of the examples' lengths."""

from __future__ import annotations

from collections.abc import Sequence

MOST_PADDING = 0.05
"""Share of a batch's own tokens that may be computed beside them for nothing."""
_CONTEXT_TOKENS = 8
"""So many tokens that a row goes on from take the memory of one that is read: a block's keys and
values, not all it computes."""


def plan_shards(lengths: Sequence[int], shard_tokens: int) -> list[range]:
    """Cut the data set into runs of whole examples: a shard ends with the example that fills it to
    `shard_tokens` tokens."""
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
    lengths: Sequence[int], batch_tokens: int, before: Sequence[int] | None = None
) -> list[list[int]]:
    """Group runs of tokens of like length, longest first, so that each padded batch takes the
    memory of `batch_tokens` tokens.

    A run longer than that makes a batch of its own; so does one that would bring more padding than
    `MOST_PADDING`.

    Args:
        lengths: tokens of each run.
        batch_tokens: most tokens of a padded batch.
        before: tokens that each run goes on from; they count for an eighth. None: of no run any.
    """
    before = before or [0] * len(lengths)
    batches: list[list[int]] = []
    real = context = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], -before[i], i)):
        longest, rows = (lengths[batches[-1][0]], len(batches[-1]) + 1) if batches else (0, 1)
        real, context = real + lengths[index], max(context, before[index])
        taken = rows * (longest + -(-context // _CONTEXT_TOKENS))
        if batches and taken <= batch_tokens and rows * longest <= (1 + MOST_PADDING) * real:
            batches[-1].append(index)
        else:
            batches.append([index])
            real, context = lengths[index], before[index]
    return batches

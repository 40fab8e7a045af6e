"""Every example is in one shard and one batch, within size and padding limits."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract.batching import MOST_PADDING, plan_batches, plan_shards

LENGTHS = st.lists(st.integers(1, 500), max_size=80)


@given(lengths=LENGTHS, size=st.integers(1, 2000))
def test_shards_have_each_example_once_in_order_and_only_the_last_is_short(
    lengths: list[int], size: int
) -> None:
    shards = plan_shards(lengths, size)
    assert [index for shard in shards for index in shard] == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in shard) >= size for shard in shards[:-1])
    assert all(sum(lengths[i] for i in shard[:-1]) < size for shard in shards)


@given(lengths=LENGTHS, size=st.integers(1, 2000))
def test_batches_have_each_example_once_within_batch_tokens(lengths: list[int], size: int) -> None:
    batches = plan_batches(lengths, size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= size


@given(
    rows=st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4000)), max_size=60),
    size=st.integers(1, 4000),
)
def test_an_eighth_of_the_prefix_tokens_counts(rows: list[tuple[int, int]], size: int) -> None:
    lengths, prefix_lengths = [length for length, _ in rows], [prefix for _, prefix in rows]
    batches = plan_batches(lengths, size, prefix_lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(len(rows)))
    for batch in batches:
        padded = max(lengths[i] for i in batch) + max(prefix_lengths[i] for i in batch) / 8
        assert len(batch) == 1 or len(batch) * padded <= size


@given(lengths=LENGTHS, size=st.integers(1, 2000))
def test_padding_is_limited_and_a_batch_ends_only_at_a_limit(lengths: list[int], size: int) -> None:
    batches = plan_batches(lengths, size)
    for batch in batches:
        tokens = sum(lengths[i] for i in batch)
        assert len(batch) * max(lengths[i] for i in batch) <= (1 + MOST_PADDING) * tokens
    for batch, following in pairwise(batches):
        padded = (len(batch) + 1) * lengths[batch[0]]
        tokens = sum(lengths[i] for i in [*batch, following[0]])
        assert padded > size or padded > (1 + MOST_PADDING) * tokens

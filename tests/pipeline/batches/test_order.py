"""The order of examples: each once per epoch, few shards at a time, the same after a resume."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.order import BatchOrder, BatchSize, Window, plan_groups, plan_windows

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)
SIZES = st.one_of(
    st.builds(BatchSize, st.integers(1, 7)), st.builds(BatchSize, st.just(1), st.integers(1, 600))
)


def order(lengths: list[int], size: BatchSize, seed: int) -> BatchOrder:
    return BatchOrder([Window([], plan_groups(range(len(lengths)), lengths, size))], seed)


@given(
    shards=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 50), min_size=7, max_size=7),
    window_bytes=st.integers(0, 200),
    seed=st.integers(0, 3),
)
def test_windows_contain_every_example_once_and_their_shards_fit(
    shards: list[int], sizes: list[int], window_bytes: int, seed: int
) -> None:
    windows = plan_windows(shards, sizes, window_bytes, seed)
    assert sorted(place for _, places in windows for place in places) == list(range(len(shards)))
    assert sorted(shard for window, _ in windows for shard in window) == sorted(set(shards))
    for window, places in windows:
        assert {shards[place] for place in places} == set(window)
        assert len(window) == 1 or sum(sizes[shard] for shard in window) <= window_bytes
    assert plan_windows(shards, sizes, window_bytes, seed) == windows


@given(lengths=LENGTHS, size=SIZES, seed=st.integers(0, 3), epoch=st.integers(0, 4))
def test_an_epoch_has_every_example_once_and_no_batch_is_too_large(
    lengths: list[int], size: BatchSize, seed: int, epoch: int
) -> None:
    batches = list(order(lengths, size, seed).of_epoch(epoch))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert len(batches) == len(order(lengths, size, seed))  # the same in every epoch
    assert sorted(
        place for batch in order(lengths, size, seed).unshuffled() for place in batch
    ) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[place] for place in batch)
        assert (
            len(batch) <= size.examples
            if size.tokens is None
            else len(batch) == 1 or padded <= size.tokens
        )
    assert list(order(lengths, size, seed).of_epoch(epoch)) == batches


def test_batches_of_similar_lengths_have_little_padding() -> None:
    lengths = [100 + (37 * place) % 900 for place in range(4000)]
    batches = list(order(lengths, BatchSize(1, 8192), 0).of_epoch(0))
    padded = sum(len(batch) * max(lengths[place] for place in batch) for batch in batches)
    assert padded < 1.06 * sum(lengths)
    assert padded / len(batches) > 0.85 * 8192


def test_epochs_and_seeds_differ_and_examples_are_shuffled() -> None:
    lengths = [50] * 60
    for size in (BatchSize(4), BatchSize(1, 200)):
        orders = {
            tuple(map(tuple, order(lengths, size, seed).of_epoch(epoch)))
            for seed in range(3)
            for epoch in range(3)
        }
        assert len(orders) == 9
        assert sorted(range(60)) not in [
            [place for batch in batches for place in batch] for batches in orders
        ]


def test_each_window_prefetches_the_shards_of_the_next() -> None:
    requested: list[list[int]] = []
    windows = [
        Window([number], plan_groups([2 * number, 2 * number + 1], [1] * 6, BatchSize()))
        for number in range(3)
    ]
    read = list(BatchOrder(windows, 0, lambda shards: requested.append(list(shards))).of_epoch(1))
    first, second, third = (batch[0] // 2 for batch in read[::2])
    assert sorted([first, second, third]) == [0, 1, 2]
    assert requested == [[first, second], [second, third], [third]]

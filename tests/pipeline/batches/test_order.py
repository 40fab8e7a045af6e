"""The order in which a remote cache is read: everything once an epoch, few shards at a time, the same again after a resume."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.order import WindowedShuffle, plan_windows

CASES = st.tuples(
    st.lists(st.integers(0, 6), min_size=1, max_size=60),
    st.lists(st.integers(1, 50), min_size=7, max_size=7),
    st.integers(0, 200),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(case=CASES)
def test_every_example_is_read_once_and_a_windows_shards_fit(case: tuple[list[int], list[int], int, int, int]) -> None:
    shards, sizes, window_bytes, seed, epoch = case
    windows = plan_windows(shards, sizes, window_bytes, seed, epoch)
    assert sorted(place for window in windows for place in window.places) == list(range(len(shards)))
    assert sorted(shard for window in windows for shard in window.shards) == sorted(set(shards))
    for window in windows:
        assert {shards[place] for place in window.places} == set(window.shards)
        assert len(window.shards) == 1 or sum(sizes[shard] for shard in window.shards) <= window_bytes
    assert plan_windows(shards, sizes, window_bytes, seed, epoch) == windows


def test_epochs_and_seeds_differ_and_examples_are_shuffled() -> None:
    shards = [place // 10 for place in range(60)]

    def order(seed: int, epoch: int) -> list[int]:
        return [place for window in plan_windows(shards, [1] * 6, 2, seed, epoch) for place in window.places]

    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 0) != sorted(order(0, 0))


def test_the_next_windows_shards_are_asked_for_when_one_begins() -> None:
    asked: list[list[int]] = []
    order = WindowedShuffle([0, 0, 1, 1, 2], [5, 5, 5], 5, 0, lambda shards: asked.append(list(shards)))
    order.set_epoch(3)
    read = list(order)
    windows = plan_windows([0, 0, 1, 1, 2], [5, 5, 5], 5, 0, 3)
    assert read == [place for window in windows for place in window.places]
    assert asked == [
        windows[0].shards + windows[1].shards, windows[1].shards + windows[2].shards, windows[2].shards,
    ]  # fmt: skip
    assert len(order) == 5

from hypothesis import given
from hypothesis import strategies as st

from pipeline.extract.plan import plan_batches, plan_shards

LENGTHS = st.lists(st.integers(1, 500), max_size=80)


@given(lengths=LENGTHS, size=st.integers(1, 2000))
def test_shards_hold_each_example_once_in_order_and_only_the_last_is_short(lengths: list[int], size: int) -> None:
    shards = plan_shards(lengths, size)
    assert [index for shard in shards for index in shard] == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in shard) >= size for shard in shards[:-1])
    assert all(sum(lengths[i] for i in shard[:-1]) < size for shard in shards)


@given(lengths=LENGTHS, size=st.integers(1, 2000))
def test_batches_hold_each_example_once_within_the_budget(lengths: list[int], size: int) -> None:
    batches = plan_batches(lengths, size)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= size

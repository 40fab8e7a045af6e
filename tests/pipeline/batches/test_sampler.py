"""Batches divided among processes: together they train on the examples of one process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.batches.examples import BatchItem
from pipeline.batches.order import BatchOrder, BatchSize, Window, plan_groups
from pipeline.batches.sampler import Batch, TrainingBatches, ValidationBatches, evened
from pipeline.processes import Share


@given(data=st.data())
def test_steps_of_several_processes_have_the_examples_of_one(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=50))
    size = data.draw(
        st.one_of(
            st.builds(BatchSize, st.integers(1, 5)),
            st.builds(BatchSize, st.just(1), st.integers(1, 200)),
        )
    )
    processes = data.draw(st.integers(1, 4))
    per_step = processes * data.draw(st.integers(1, 3))
    epoch = data.draw(st.integers(0, 3))
    order = BatchOrder([Window([], plan_groups(range(len(lengths)), lengths, size))], 5)

    def steps(share: Share) -> list[list[Batch]]:
        sampler = TrainingBatches(order, per_step, share)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        own = per_step // share.processes
        return [batches[start : start + own] for start in range(0, len(batches), own)]

    alone = steps(Share())
    together = [steps(Share(rank, processes)) for rank in range(processes)]
    for number, step in enumerate(alone):
        counts = {len(steps_of_rank[number]) for steps_of_rank in together}
        assert len(counts) == 1  # no process waits for another that has finished
        items = [
            item for steps_of_rank in together for batch in steps_of_rank[number] for item in batch
        ]
        assert all(batch for steps_of_rank in together for batch in steps_of_rank[number])
        expected = sorted(item.place for batch in step for item in batch)
        assert sorted(item.place for item in items if item.counts_in_loss) == expected
        assert {item.place for item in items} == set(expected)
    assert {len(steps_of_rank) for steps_of_rank in together} == {len(alone)}


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=50), processes=st.integers(1, 4))
def test_validation_reads_every_example_in_one_process(lengths: list[int], processes: int) -> None:
    order = BatchOrder([Window([], plan_groups(range(len(lengths)), lengths, BatchSize(1, 90)))], 0)
    shares = [ValidationBatches(order, Share(rank, processes)) for rank in range(processes)]
    assert [len(list(share)) for share in shares] == [len(share) for share in shares]
    items = [item for share in shares for batch in share for item in batch]
    assert sorted(item.place for item in items) == list(range(len(lengths)))
    assert all(item.counts_in_loss for item in items)


def test_a_lone_example_is_repeated_without_counting_in_the_loss() -> None:
    assert evened([[BatchItem(7)]], 3) == [
        [BatchItem(7)],
        [BatchItem(7, counts_in_loss=False)],
        [BatchItem(7, counts_in_loss=False)],
    ]

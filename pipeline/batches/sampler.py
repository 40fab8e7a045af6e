"""Who reads which batch: an epoch's batches dealt out to the processes that train together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from pipeline.batches.order import BatchOrder
from pipeline.processes import Share


class TrainingBatches(Sampler[list[int]]):
    """One process's batches of an epoch after the other. Its steps are those of a process alone."""

    def __init__(self, order: BatchOrder, batches_a_step: int, share: Share) -> None:
        """Deal out an order; `batches_a_step` is of all processes together, a multiple of their
        number."""
        assert batches_a_step % share.processes == 0
        self._order, self._a_step, self._share = order, batches_a_step, share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        self._epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self._order), self._a_step)
        return whole * (self._a_step // self._share.processes) + -(-rest // self._share.processes)

    def __iter__(self) -> Iterator[list[int]]:
        step: list[list[int]] = []
        for batch in self._order.of_epoch(self._epoch):
            step.append(batch)
            if len(step) == self._a_step:
                yield from step[self._share.rank :: self._share.processes]
                step = []
        yield from evened(step, self._share.processes)[self._share.rank :: self._share.processes]


class ValidationBatches(Sampler[list[int]]):
    """One process's share of all batches, in the order in which they lie."""

    def __init__(self, order: BatchOrder, share: Share) -> None:
        """Deal out an order."""
        self._order, self._share = order, share

    def __len__(self) -> int:
        return len(range(self._share.rank, len(self._order), self._share.processes))

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self._order.as_they_lie()):
            if number % self._share.processes == self._share.rank:
                yield batch


def evened(batches: Sequence[list[int]], processes: int) -> list[list[int]]:
    """The same examples in a multiple of `processes` batches: the largest are halved until it is
    one.

    Where all are single examples, `~place` stands for one that is read without learning from it.
    """
    batches = list(batches)
    while len(batches) % processes:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[largest]
        if len(batch) == 1:
            batches.append([~batch[0]])
        else:
            batches[largest : largest + 1] = [batch[::2], batch[1::2]]
    return batches

"""Samplers that divide the batches of an epoch among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from pipeline.batches.examples import BatchItem
from pipeline.batches.order import BatchOrder
from pipeline.processes import Share

Batch = list[BatchItem]


class TrainingBatches(Sampler[Batch]):
    """The training batches of one process; optimiser steps are the same for any number of them."""

    def __init__(self, order: BatchOrder, batches_per_step: int, share: Share) -> None:
        """Divide an order.

        Args:
            order: of all batches.
            batches_per_step: of all processes together; a multiple of their number.
            share: rank of this process, and number of processes.
        """
        assert batches_per_step % share.processes == 0
        self._order, self._per_step, self._share = order, batches_per_step, share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self._order), self._per_step)
        processes = self._share.processes
        return whole * (self._per_step // processes) + -(-rest // processes)

    def __iter__(self) -> Iterator[Batch]:
        rank, processes = self._share.rank, self._share.processes
        step: list[Batch] = []
        for places in self._order.of_epoch(self._epoch):
            step.append(_items(places))
            if len(step) == self._per_step:
                yield from step[rank::processes]
                step = []
        yield from evened(step, processes)[rank::processes]


class ValidationBatches(Sampler[Batch]):
    """The validation batches of one process, in the order of the cache."""

    def __init__(self, order: BatchOrder, share: Share) -> None:
        """Divide an order."""
        self._order, self._share = order, share

    def __len__(self) -> int:
        return len(range(self._share.rank, len(self._order), self._share.processes))

    def __iter__(self) -> Iterator[Batch]:
        for number, places in enumerate(self._order.unshuffled()):
            if number % self._share.processes == self._share.rank:
                yield _items(places)


def evened(batches: Sequence[Batch], processes: int) -> list[Batch]:
    """Return the same examples in a multiple of `processes` batches.

    The largest batches are halved; if all are single examples, one is repeated without counting
    in the loss.
    """
    batches = list(batches)
    while len(batches) % processes:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        batch = batches[largest]
        if len(batch) == 1:
            batches.append([BatchItem(batch[0].place, counts_in_loss=False)])
        else:
            batches[largest : largest + 1] = [batch[::2], batch[1::2]]
    return batches


def _items(places: Sequence[int]) -> Batch:
    return [BatchItem(place) for place in places]

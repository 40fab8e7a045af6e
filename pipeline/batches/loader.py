"""A loader of cached examples as padded batches."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from pipeline.batches.collate import collate
from pipeline.batches.examples import CachedExamples
from pipeline.batches.sampler import TrainingBatches, ValidationBatches


class CachedBatches(DataLoader[Any]):
    """The batches of a sampler, read from a cache and padded (see `collate`)."""

    def __init__(
        self,
        examples: CachedExamples,
        batches: TrainingBatches | ValidationBatches,
        *,
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        """Create the loader.

        Args:
            examples: the examples.
            batches: the batches, in order.
            workers: processes that read ahead; 0: batches are read in this process, on demand.
            pinned: use pinned memory, which is fast to copy to a GPU.
        """
        super().__init__(
            examples,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            # the client of an object store does not survive a fork
            multiprocessing_context="spawn" if workers and examples.is_remote else None,
            pin_memory=pinned,
            # the global generator must continue from its checkpointed state after a resume
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        if isinstance(self.batch_sampler, TrainingBatches):
            self.batch_sampler.set_epoch(epoch)

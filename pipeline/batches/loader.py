"""Batches of cached examples, ready for a student."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader

from pipeline.batches.collate import collate
from pipeline.batches.examples import CachedExamples
from pipeline.batches.sampler import TrainingBatches, ValidationBatches


class CachedBatches(DataLoader[Any]):
    """The batches that a sampler names, read from a cache and padded (see `collate`)."""

    def __init__(
        self,
        examples: CachedExamples,
        batches: TrainingBatches | ValidationBatches,
        *,
        workers: int = 0,
        pinned: bool = False,
    ) -> None:
        """Read `examples`.

        Args:
            examples: the examples.
            batches: which of them make a batch, and in which order.
            workers: processes that read ahead; 0: none, batches are read when they are asked for.
            pinned: put batches in memory from which a GPU copies fast.
        """
        super().__init__(
            examples,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn"
            if workers and examples.is_remote
            else None,  # its client does not survive a fork
            pin_memory=pinned,
            # of its own: torch's is the student's, and must be where it was after a resume
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next."""
        if isinstance(self.batch_sampler, TrainingBatches):
            self.batch_sampler.set_epoch(epoch)

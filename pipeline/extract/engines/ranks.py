"""Teachers in the ranks started by torchrun, on machines that share the cache's folder.

The ranks work in rounds: each computes a shard, then rank 0 journals the shards that became durable
since the last round. If a rank dies, torchrun ends all ranks; the next run resumes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from cache import CacheWriter
from cache.codecs import Codec
from cache.manifest import Manifest
from cache.shard.content import ShardContent
from cache.shard.record import ShardRecord
from cache.shard.writer import store_shard
from pipeline.extract.engines.queue import ShardQueue
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.extract.publisher import BackgroundPublisher, report_shard
from pipeline.extract.work import TeacherWork
from pipeline.extract.worker import ShardWorker
from pipeline.progress import Progress

_LONGEST_ROUND = timedelta(days=1)
"""Time after which a rank considers the others dead; torchrun itself notices at once."""


class RanksEngine:
    """Rank 0 is the coordinator and a worker; the other ranks are workers."""

    def __init__(self, plan: ExtractPlan) -> None:
        """Join the process group."""
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("gloo", timeout=_LONGEST_ROUND)
        self._work = plan.work()
        self._worker = ShardWorker(self._work)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return dist.get_rank() == 0

    def __enter__(self) -> RanksEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the process group; after an error, torchrun ends the other ranks."""
        if kind is None:
            dist.destroy_process_group()

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """Return the fitted codecs."""
        return self._worker.calibrate(progress)

    def load(self) -> None:
        """Load the teacher of this rank."""
        self._worker.load()

    def make_shards(self, fitted: FittedPlan, writer: CacheWriter, progress: Progress) -> None:
        """Assign a shard to each rank per round, and journal the durable ones."""
        queue, codecs = ShardQueue(fitted.plan, writer.published), fitted.codecs
        _broadcast((writer.manifest, codecs))
        with self._rank_worker(writer.manifest, codecs) as worker:
            while len(queue):
                shards = [queue.take() for _ in range(dist.get_world_size())]
                for record in worker.run(_broadcast(_Round(shards, queue.unusable))):
                    writer.record(record)
                    queue.mark_published(record.shard)
                    report_shard(progress, record)
            _broadcast(None)

    def follow(self) -> None:
        """Run the rounds that rank 0 broadcasts, until it broadcasts None."""
        manifest, codecs = _broadcast(None)
        with self._rank_worker(manifest, codecs) as worker:
            while (task := _broadcast(None)) is not None:
                worker.run(task)

    def _rank_worker(self, manifest: Manifest, codecs: dict[int, Codec]) -> _RankWorker:
        return _RankWorker(self._work, self._worker, manifest, codecs)


@dataclass(frozen=True)
class _Round:
    """One round of all ranks.

    Attributes:
        shards: of each rank; None for a rank without a shard.
        unusable: prefixes known to have no finite states.
    """

    shards: list[int | None]
    unusable: set[int]


class _RankWorker:
    """Computes this rank's shards; each is encoded and stored while the next one is computed."""

    def __init__(
        self,
        work: TeacherWork,
        worker: ShardWorker,
        manifest: Manifest,
        codecs: dict[int, Codec],
    ) -> None:
        self._location, self._manifest, self._worker = work.location, manifest, worker
        self._durable: list[ShardRecord] = []
        self._publisher = BackgroundPublisher(self, codecs, work.provenance(), self._durable.append)

    def __enter__(self) -> _RankWorker:
        self._publisher.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._publisher.__exit__(kind, error, trace)

    def publish(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int],
        provenance: Mapping[str, Any],
    ) -> ShardRecord:
        """Store a shard without journaling it, which rank 0 does later."""
        return store_shard(self._location, self._manifest, shard, content, non_finite, provenance)

    def run(self, task: _Round) -> list[ShardRecord]:
        """Compute this rank's shard; return the shards that became durable.

        Rank 0 returns those of all ranks, the others none.
        """
        shard = task.shards[dist.get_rank()]
        if shard is None:
            self._publisher.flush()
        else:
            self._publisher.publish(shard, self._worker.read(shard, task.unusable))
        durable = self._durable.copy()
        self._durable.clear()
        gathered: list[Any] | None = None
        if dist.get_rank() == 0:
            gathered = [None] * dist.get_world_size()
        dist.gather_object(durable, gathered)
        return [record for records in gathered or () for record in records]


def _broadcast(message: Any) -> Any:
    """Return rank 0's message on all ranks."""
    messages = [message]
    dist.broadcast_object_list(messages)
    return messages[0]

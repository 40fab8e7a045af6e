"""Teachers in the ranks that torchrun has started, on one machine or many that share the cache's
folder.

The work goes in rounds: in each, every rank reads a shard; then rank 0 journals those that have
become durable since the round before. A rank that dies ends all of them, as torchrun has it;
started again, they go on at the next shard."""

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
"""Until a rank takes the others for dead; torchrun itself notices at once."""


class RanksEngine:
    """Rank 0 leads: it plans, calibrates, journals and reads shards; the others follow."""

    def __init__(self, plan: ExtractPlan) -> None:
        """Meet the other ranks."""
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
        """Part from the other ranks; where this one has failed, its end is what tells them."""
        if kind is None:
            dist.destroy_process_group()

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """As `Engine.calibrate`."""
        return self._worker.calibrate(progress)

    def load(self) -> None:
        """As `Engine.load`."""
        self._worker.load()

    def make_shards(
        self,
        fitted: FittedPlan,
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """As `Engine.make_shards`."""
        queue, codecs = ShardQueue(fitted.plan, writer.published), fitted.codecs
        _told_by_rank_0((writer.manifest, codecs))
        with self._storing(writer.manifest, codecs) as storing:
            while len(queue):
                task = _Round([queue.take() for _ in range(dist.get_world_size())], queue.unusable)
                for record in storing.do(_told_by_rank_0(task)):
                    writer.record(record)
                    queue.published(record.shard)
                    report_shard(progress, record)
            _told_by_rank_0(None)

    def follow(self) -> None:
        """Do what rank 0 says, until it has no more to say."""
        manifest, codecs = _told_by_rank_0(None)
        with self._storing(manifest, codecs) as storing:
            while (task := _told_by_rank_0(None)) is not None:
                storing.do(task)

    def _storing(self, manifest: Manifest, codecs: dict[int, Codec]) -> _StoringRank:
        return _StoringRank(self._work, self._worker, manifest, codecs)


@dataclass(frozen=True)
class _Round:
    """The shard of each rank, or None where there is none for it; and the prefixes known to have no
    finite states."""

    shards: list[int | None]
    unusable: set[int]


class _StoringRank:
    """Reads this rank's shards; each is coded and stored while the next one is read."""

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

    def __enter__(self) -> _StoringRank:
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
        """Store a shard; rank 0 will journal it."""
        return store_shard(self._location, self._manifest, shard, content, non_finite, provenance)

    def do(self, task: _Round) -> list[ShardRecord]:
        """Read this rank's shard; on rank 0 the records of all shards that have become durable on
        any rank, else nothing."""
        shard = task.shards[dist.get_rank()]
        if shard is None:
            self._publisher.settle()
        else:
            self._publisher.publish(shard, self._worker.read(shard, task.unusable))
        durable = self._durable.copy()
        self._durable.clear()
        of_ranks: list[Any] | None = (
            [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        )
        dist.gather_object(durable, of_ranks)
        return [record for records in of_ranks or () for record in records]


def _told_by_rank_0(message: Any) -> Any:
    """The same on all ranks: rank 0's message."""
    messages = [message]
    dist.broadcast_object_list(messages)
    return messages[0]

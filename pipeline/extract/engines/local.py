"""The teacher in this process: it reads a shard while the one before is coded and written."""

from __future__ import annotations

from types import TracebackType

from cache import CacheWriter
from cache.codecs import Codec
from cache.shard.record import ShardRecord
from pipeline.extract.plan import ExtractPlan, FittedPlan
from pipeline.extract.publisher import BackgroundPublisher
from pipeline.extract.worker import ShardWorker
from pipeline.progress import Progress


class LocalEngine:
    """One worker, here."""

    leads = True

    def __init__(self, plan: ExtractPlan) -> None:
        self._work = plan.work()
        self._worker = ShardWorker(self._work)

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left behind."""

    def load(self) -> None:
        """As `Engine.load`."""
        self._worker.load()

    def follow(self) -> None:
        """As `Engine.follow`: there is nobody else."""

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """As `Engine.calibrate`."""
        return self._worker.calibrate(progress)

    def make_shards(
        self,
        fitted: FittedPlan,
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """As `Engine.make_shards`."""

        def published(record: ShardRecord) -> None:
            progress.advance(0, shards=1, bytes=record.bytes)

        unusable = fitted.plan.unusable_prefixes(writer.published)
        with BackgroundPublisher(
            writer, fitted.codecs, self._work.provenance(), published
        ) as publisher:
            checked = _CheckedProgress(progress, publisher)
            for shard in writer.missing_shards():
                states = self._worker.read(shard, unusable, checked)
                progress.advance(0, seconds_waited=publisher.settle())
                publisher.publish(shard, states)


class _CheckedProgress(Progress):
    """Raises the error of a failed write at the next batch."""

    def __init__(self, progress: Progress, publisher: BackgroundPublisher) -> None:
        self._progress, self._publisher = progress, publisher

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._publisher.check()
        self._progress.advance(amount, **figures)

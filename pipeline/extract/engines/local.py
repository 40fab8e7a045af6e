"""The teacher in this process: it computes a shard while the previous one is written."""

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
    """Runs one worker in this process."""

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
        """Do nothing."""

    def load(self) -> None:
        """Load the teacher."""
        self._worker.load()

    def follow(self) -> None:
        """Do nothing: this process is the coordinator."""

    def calibrate(self, progress: Progress) -> dict[int, Codec]:
        """Return the fitted codecs."""
        return self._worker.calibrate(progress)

    def make_shards(self, fitted: FittedPlan, writer: CacheWriter, progress: Progress) -> None:
        """Compute each missing shard while the previous one is encoded and written."""

        def published(record: ShardRecord) -> None:
            progress.advance(0, shards=1, bytes=record.bytes)

        unusable = fitted.plan.unusable_prefixes(writer.published)
        with BackgroundPublisher(
            writer, fitted.codecs, self._work.provenance(), published
        ) as publisher:
            checked = _CheckedProgress(progress, publisher)
            for shard in writer.missing_shards():
                states = self._worker.read(shard, unusable, checked)
                progress.advance(0, seconds_waited=publisher.flush())
                publisher.publish(shard, states)


class _CheckedProgress(Progress):
    """Raises the error of a failed write at the next batch."""

    def __init__(self, progress: Progress, publisher: BackgroundPublisher) -> None:
        self._progress, self._publisher = progress, publisher

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._publisher.check()
        self._progress.advance(amount, **figures)

"""The teacher in this process: it reads a shard while the one before is coded and written."""

from __future__ import annotations

from types import TracebackType

from cache import CacheWriter
from cache.codecs import Codec
from cache.shard.record import ShardRecord
from pipeline.extract.calibrate import Step
from pipeline.extract.engines.interface import Progress, no_progress
from pipeline.extract.plan import PreparedExtract
from pipeline.extract.publisher import BackgroundPublisher
from pipeline.extract.worker import ShardWorker


class LocalEngine:
    """One worker, here."""

    leads = True

    def __init__(self, prepared: PreparedExtract) -> None:
        self._progress: Progress = no_progress
        self._publisher: BackgroundPublisher | None = None
        self._worker = ShardWorker(prepared, self._read)

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

    def calibrate(self, step: Step) -> dict[int, Codec]:
        """As `Engine.calibrate`."""
        return self._worker.calibrate(step)

    def make_shards(
        self,
        prepared: PreparedExtract,
        codecs: dict[int, Codec],
        writer: CacheWriter,
        progress: Progress,
    ) -> None:
        """As `Engine.make_shards`."""
        self._progress = progress

        def published(record: ShardRecord) -> None:
            progress(shards=1, size=record.bytes)

        unusable = prepared.unusable_prefixes(writer.published)
        with BackgroundPublisher(
            writer, codecs, prepared.provenance_of_shards(), published
        ) as self._publisher:
            for shard in writer.missing_shards():
                states = self._worker.read(shard, unusable)
                progress(waited=self._publisher.settle())
                self._publisher.publish(shard, states)

    def _read(self, tokens: int) -> None:
        if self._publisher is not None:
            self._publisher.check()
        self._progress(tokens)

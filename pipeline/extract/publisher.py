"""Coding and writing shards while the teacher computes the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Protocol

from cache.codecs import Codec
from cache.shard.content import ShardContent
from cache.shard.record import ShardRecord
from pipeline.extract.shard_states import ShardStates
from pipeline.progress import Progress


class ShardStore(Protocol):
    """Stores shards, as a `CacheWriter` does."""

    def publish(
        self,
        shard: int,
        content: ShardContent,
        *,
        non_finite: Mapping[str, int],
        provenance: Mapping[str, Any],
    ) -> ShardRecord:
        """Until this returns the shard does not exist, from then on it is whole and durable."""
        ...


class BackgroundPublisher:
    """Publishes one shard at a time, on a thread of its own.

    Bounded: a shard is handed over only when the one before is durable, so at most one is being
    written while one is being computed. A write that fails is raised by the next call, whatever it
    is."""

    def __init__(
        self,
        writer: ShardStore,
        codecs: dict[int, Codec],
        provenance: Mapping[str, Any],
        published: Callable[[ShardRecord], None] = lambda record: None,
    ) -> None:
        """Begin.

        Args:
            writer: stores the shards.
            codecs: of each layer.
            provenance: recorded with each shard.
            published: called, on the caller's thread, for each shard that is durable.
        """
        self._writer, self._codecs, self._provenance, self._published = (
            writer,
            codecs,
            provenance,
            published,
        )
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._writing: Future[ShardRecord] | None = None

    def publish(self, shard: int, states: ShardStates) -> None:
        """Wait until the shard before is durable, then begin to write this one.

        Raises:
            OSError: the shard before could not be written.
        """
        self.settle()
        self._writing = self._thread.submit(self._code_and_publish, shard, states)

    def _code_and_publish(self, shard: int, states: ShardStates) -> ShardRecord:
        content = states.coded(self._codecs)
        provenance = {**self._provenance, "batch_tokens": states.batch_tokens}
        return self._writer.publish(
            shard, content, non_finite=states.non_finite, provenance=provenance
        )

    def check(self) -> None:
        """Return at once; raises what the write in progress has failed with, if it has."""
        if self._writing is not None and self._writing.done():
            self.settle()

    def settle(self) -> float:
        """Wait until what is being written is durable, and say for how many seconds.

        Raises:
            OSError: it could not be written.
        """
        began = time.perf_counter()
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._published(writing.result())
        return time.perf_counter() - began

    def __enter__(self) -> BackgroundPublisher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the shard that is being written become durable, even where the run has failed or is
        interrupted once more: whoever holds the cache's lock may only let go of it when nothing is
        written any longer."""
        interrupted: BaseException | None = None
        while self._writing is not None and not self._writing.done():
            try:
                wait([self._writing])
            except KeyboardInterrupt as again:
                interrupted = again
        self._thread.shutdown()
        if interrupted is not None:
            raise interrupted
        if error is None:
            self.settle()


def report_shard(progress: Progress, record: ShardRecord) -> None:
    """Advance by a published shard whose tokens have not been counted yet."""
    tokens = record.tokens + sum(record.non_finite.values())
    progress.advance(tokens, shards=1, bytes=record.bytes)

"""Encode and write shards while the teacher computes the next one."""

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
        """Write a shard; it is durable when this returns, and does not exist before."""
        ...


class BackgroundPublisher:
    """Publishes one shard at a time on a separate thread.

    `publish` waits for the previous shard, so at most one is being written while one is being
    computed. The next call of any method raises the error of a failed write.
    """

    def __init__(
        self,
        writer: ShardStore,
        codecs: dict[int, Codec],
        provenance: Mapping[str, Any],
        published: Callable[[ShardRecord], None] = lambda record: None,
    ) -> None:
        """Start the thread.

        Args:
            writer: stores the shards.
            codecs: of each layer.
            provenance: recorded with each shard.
            published: called on the caller's thread for each durable shard.
        """
        self._writer, self._codecs = writer, codecs
        self._provenance, self._published = provenance, published
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._writing: Future[ShardRecord] | None = None

    def publish(self, shard: int, states: ShardStates) -> None:
        """Wait until the previous shard is durable, then start to write this one.

        Raises:
            OSError: the previous shard could not be written.
        """
        self.flush()
        self._writing = self._thread.submit(self._encode_and_publish, shard, states)

    def _encode_and_publish(self, shard: int, states: ShardStates) -> ShardRecord:
        content = states.coded(self._codecs)
        provenance = {**self._provenance, "batch_tokens": states.batch_tokens}
        return self._writer.publish(
            shard, content, non_finite=states.non_finite, provenance=provenance
        )

    def check(self) -> None:
        """Raise the error of the current write if it has failed; never wait.

        Raises:
            OSError: the shard could not be written.
        """
        if self._writing is not None and self._writing.done():
            self.flush()

    def flush(self) -> float:
        """Wait until the current write is durable; return the seconds waited.

        Raises:
            OSError: the shard could not be written.
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
        """Finish the current write, even after an error or a second interrupt.

        The caller releases the cache's lock next, and nothing may be written after that.
        """
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
            self.flush()


def report_shard(progress: Progress, record: ShardRecord) -> None:
    """Add the tokens and bytes of a published shard to the progress."""
    tokens = record.tokens + sum(record.non_finite.values())
    progress.advance(tokens, shards=1, bytes=record.bytes)

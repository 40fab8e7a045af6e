"""The open shards of a cache: few files at a time; checksums are compared once per shard."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from cache.errors import DamagedCacheError
from cache.manifest import Manifest
from cache.shard.reader import StoredShard, shard_name
from cache.shard.record import ShardRecord
from cache.shard.segment import CodedSegment
from cache.storage import Pin, ReadSession

_OPEN_FILES = 256
"""Maximum open files per process."""
_TOKEN_BYTES = 64 << 20
"""Memory per process for token ids and loss masks; others are read per example."""


class ShardPool:
    """Opens shards when they are first read, and closes the least recently read."""

    def __init__(
        self, session: ReadSession, manifest: Manifest, records: Sequence[ShardRecord]
    ) -> None:
        """Open nothing yet.

        Args:
            session: reads the cache.
            manifest: of the cache.
            records: of all its shards.
        """
        self._session, self._manifest, self._records = session, manifest, records
        self._is_remote = session.location.is_remote
        self._shards: dict[int, StoredShard] = {}
        self._open: OrderedDict[int, None] = OrderedDict()
        # Open files take disk space even when their local copies have been removed.
        self._most_open = (
            2 if self._is_remote else max(1, _OPEN_FILES // (len(manifest.layers) + 2))
        )
        self._marks: dict[int, tuple[int, int] | None] = {}
        # Shards that stay open: all fit at the same time, and their files are not local copies.
        self._stay_open: set[int] = set()
        self._opening = threading.Lock()
        self._token_bytes = 0
        self._checked = mmap.mmap(-1, max(len(records), 1))  # shared with forked processes

    def reading(self, shard: int) -> AbstractContextManager[StoredShard]:
        """Return an open shard whose files stay in place during the block.

        Raises:
            DamagedCacheError: it is damaged.
        """
        if shard in self._stay_open:
            return _Reading(self._shards[shard], None)
        with self._opening:
            pin = self._opened(shard)
            self._open.pop(shard, None)
            self._open[shard] = None
            if len(self._open) > self._most_open:
                self._shards[self._open.popitem(last=False)[0]].close()
            opened = self._shards[shard]
            if not self._is_remote and len(self._records) <= self._most_open:
                self._stay_open.add(shard)
        return _Reading(
            opened, partial(self._end_reading, shard, opened, pin) if self._is_remote else None
        )

    def _end_reading(self, shard: int, opened: StoredShard, pin: Pin) -> None:
        """Release local copies; close a shard that was evicted while it was read."""
        pin.release()
        with self._opening:
            if shard not in self._open:
                opened.close()

    def _opened(self, shard: int) -> Pin:
        """Open a shard if it is closed; download a damaged local copy once more."""
        pin = self._session.pin(self._records[shard])
        try:
            self._open_files(shard)
        except DamagedCacheError:
            pin.release()
            if not self._is_remote:
                raise
            pin = self._session.pin(self._records[shard], refetch=True)
            try:
                self._open_files(shard)
            except DamagedCacheError:
                pin.release()
                raise
        return pin

    def _open_files(self, shard: int) -> None:
        mark = self._mark(shard)
        before = self._shards.get(shard)
        if before is not None and self._marks[shard] == mark:
            return
        check = mark is not None or not self._checked[shard]
        opened = self._shards[shard] = StoredShard(
            self._session.folder, self._manifest, self._records[shard], check=check
        )
        self._checked[shard], self._marks[shard] = 1, mark
        if before is not None:
            before.close()
        if before is not None and before.tokens_loaded:
            opened.load_tokens()
        elif self._token_bytes + opened.token_bytes <= _TOKEN_BYTES:
            self._token_bytes += opened.load_tokens()

    def _mark(self, shard: int) -> tuple[int, int] | None:
        """Return a mark that changes when a local copy is replaced; None in a local folder."""
        if not self._is_remote:
            return None
        status = (self._session.folder / shard_name(self._manifest, shard)).stat()
        return status.st_ino, status.st_ctime_ns

    def read_segment(self, shard: int, segment: int, layers: Sequence[int]) -> CodedSegment:
        """Return a segment of a shard.

        Raises:
            DamagedCacheError: it cannot be read.
        """
        with self.reading(shard) as opened:
            input_ids, loss_mask = opened.tokens(segment)
            states = {layer: opened.coded(segment, layer) for layer in layers}
            return CodedSegment(input_ids, loss_mask, states)

    def prefetch(self, shards: Sequence[int]) -> None:
        """See `Cache.prefetch`."""
        self._session.prefetch([self._records[shard] for shard in shards])

    def close(self) -> None:
        """Close all files, and stop prefetching."""
        while self._open:
            self._shards[self._open.popitem()[0]].close()
        self._stay_open.clear()
        self._session.close()


class _Reading:
    """A block in which a shard is read; created for every segment, so it must be cheap."""

    __slots__ = ("_opened", "_release")

    def __init__(self, opened: StoredShard, release: Callable[[], None] | None) -> None:
        self._opened, self._release = opened, release

    def __enter__(self) -> StoredShard:
        return self._opened

    def __exit__(self, *ended: object) -> None:
        if self._release is not None:
            self._release()

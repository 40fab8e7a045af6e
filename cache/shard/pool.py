"""The open shards of a cache: few files at a time, each shard's checksums compared once."""

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
from cache.storage import Hold, Place
from cache.storage.prefetch import Prefetcher

_OPEN_FILES = 256
"""Open files in each process."""
_TOKEN_BYTES = 64 << 20
"""Memory for token ids and loss masks in each process; others are read per example."""


class ShardPool:
    """Opens shards when they are first read; closes those that have not been read for longest."""

    def __init__(self, place: Place, manifest: Manifest, records: Sequence[ShardRecord]) -> None:
        """Open nothing yet.

        Args:
            place: of the cache.
            manifest: of the cache.
            records: of all its shards.
        """
        self._place, self._manifest, self._records = place, manifest, records
        self._shards: dict[int, StoredShard] = {}
        self._open: OrderedDict[int, None] = OrderedDict()
        # Open files take disk space even when their local copies have been removed.
        self._most_open = (
            2 if place.is_remote else max(1, _OPEN_FILES // (len(manifest.layers) + 2))
        )
        self._marks: dict[int, tuple[int, int] | None] = {}
        # Shards that stay open: all may be open at a time, and files are not local copies.
        self._stay_open: set[int] = set()
        self._opening = threading.Lock()
        self._token_bytes = 0
        self._checked = mmap.mmap(-1, max(len(records), 1))  # shared with forked processes
        self._prefetcher: Prefetcher | None = None

    def reading(self, shard: int) -> AbstractContextManager[StoredShard]:
        """Return an open shard, whose files stay in place until the end of the block.

        Raises:
            DamagedCacheError: it is damaged.
        """
        if shard in self._stay_open:
            return _Reading(self._shards[shard], None)
        with self._opening:
            hold = self._opened(shard)
            self._open.pop(shard, None)
            self._open[shard] = None
            if len(self._open) > self._most_open:
                self._shards[self._open.popitem(last=False)[0]].close()
            opened = self._shards[shard]
            if not self._place.is_remote and len(self._records) <= self._most_open:
                self._stay_open.add(shard)
        return _Reading(
            opened, partial(self._read, shard, opened, hold) if self._place.is_remote else None
        )

    def _read(self, shard: int, opened: StoredShard, hold: Hold) -> None:
        """Release local copies; close a shard that left the pool while it was read."""
        hold.let_go()
        with self._opening:
            if shard not in self._open:
                opened.close()

    def _opened(self, shard: int) -> Hold:
        """Open a shard unless it is open; download a damaged local copy once more."""
        hold = self._place.hold(self._records[shard])
        try:
            self._open_files(shard)
        except DamagedCacheError:
            hold.let_go()
            if not self._place.is_remote:
                raise
            hold = self._place.hold(self._records[shard], anew=True)
            try:
                self._open_files(shard)
            except DamagedCacheError:
                hold.let_go()
                raise
        return hold

    def _open_files(self, shard: int) -> None:
        mark = self._mark(shard)
        before = self._shards.get(shard)
        if before is not None and self._marks[shard] == mark:
            return
        check = mark is not None or not self._checked[shard]
        opened = self._shards[shard] = StoredShard(
            self._place.folder, self._manifest, self._records[shard], check=check
        )
        self._checked[shard], self._marks[shard] = 1, mark
        if before is not None:
            before.close()
        if before is not None and before.tokens_loaded:
            opened.load_tokens()
        elif self._token_bytes + opened.token_bytes <= _TOKEN_BYTES:
            self._token_bytes += opened.load_tokens()

    def _mark(self, shard: int) -> tuple[int, int] | None:
        """Return what changes when a local copy is replaced; None where files never are."""
        if not self._place.is_remote:
            return None
        status = (self._place.folder / shard_name(self._manifest, shard)).stat()
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
        """Download shards in the background, as `Cache.prefetch`."""
        if self._place.is_remote:
            if self._prefetcher is None:
                self._prefetcher = Prefetcher(self._place, self._records)
            self._prefetcher.ask(shards)

    def close(self) -> None:
        """Close all files, and stop prefetching."""
        while self._open:
            self._shards[self._open.popitem()[0]].close()
        self._stay_open.clear()
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None


class _Reading:
    """The block in which a shard is read; created per segment, so it must be cheap."""

    __slots__ = ("_let_go", "_opened")

    def __init__(self, opened: StoredShard, let_go: Callable[[], None] | None) -> None:
        self._opened, self._let_go = opened, let_go

    def __enter__(self) -> StoredShard:
        return self._opened

    def __exit__(self, *ended: object) -> None:
        if self._let_go is not None:
            self._let_go()

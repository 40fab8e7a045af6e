"""The shards of a cache that are open for reading: few files at a time, each shard's checksums
compared once."""

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
from cache.storage import Hold, Place
from cache.storage.prefetch import Prefetcher

_OPEN_FILES = 256
"""Files held open at a time in each process."""
_HELD_BYTES = 64 << 20
"""Token ids and loss masks kept in memory in each process; those of further shards are read with
each example."""


class ShardPool:
    """Opens shards when they are first read, and closes the files of those that were not read for
    longest."""

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
        # Files that are open take room even when their copies have been removed.
        self._most_open = (
            2 if place.is_remote else max(1, _OPEN_FILES // (len(manifest.layers) + 2))
        )
        self._marks: dict[int, tuple[int, int] | None] = {}
        # Shards that nothing will close: where all may be open at a time, and their files are no
        # copies.
        self._stay_open: set[int] = set()
        self._opening = threading.Lock()
        self._held_bytes = 0
        self._checked = mmap.mmap(-1, max(len(records), 1))  # shared with forked processes
        self._prefetcher: Prefetcher | None = None

    def reading(self, shard: int) -> AbstractContextManager[StoredShard]:
        """A shard open for reading, whose files stay where they are until the end of the block.

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
        """Let go of copies that have been read; a shard that was closed meanwhile may have been
        opened by the reading."""
        hold.let_go()
        with self._opening:
            if shard not in self._open:
                opened.close()

    def _opened(self, shard: int) -> Hold:
        """Open a shard, where it is not open; a copy that is found to be damaged is brought once
        more."""
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
        known = self._shards.get(shard)
        if known is not None and self._marks[shard] == mark:
            return
        check = mark is not None or not self._checked[shard]
        opened = self._shards[shard] = StoredShard(
            self._place.folder, self._manifest, self._records[shard], check=check
        )
        self._checked[shard], self._marks[shard] = 1, mark
        if known is not None:
            known.close()
        if known is not None and known.tokens_loaded:
            opened.load_tokens()
        elif self._held_bytes + opened.token_bytes <= _HELD_BYTES:
            self._held_bytes += opened.load_tokens()

    def _mark(self, shard: int) -> tuple[int, int] | None:
        """Tells a copy from another that took its place, whoever brought it; None where files are
        never replaced."""
        if not self._place.is_remote:
            return None
        found = (self._place.folder / shard_name(self._manifest, shard)).stat()
        return found.st_ino, found.st_ctime_ns

    def prefetch(self, shards: Sequence[int]) -> None:
        """As `Cache.prefetch`."""
        if self._place.is_remote:
            if self._prefetcher is None:
                self._prefetcher = Prefetcher(self._place, self._records)
            self._prefetcher.ask(shards)

    def close(self) -> None:
        """Close all files, and bring nothing more."""
        while self._open:
            self._shards[self._open.popitem()[0]].close()
        self._stay_open.clear()
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None


class _Reading:
    """A block in which a shard is read: made for each segment, so it costs next to nothing."""

    __slots__ = ("_let_go", "_opened")

    def __init__(self, opened: StoredShard, let_go: Callable[[], None] | None) -> None:
        self._opened, self._let_go = opened, let_go

    def __enter__(self) -> StoredShard:
        return self._opened

    def __exit__(self, *ended: object) -> None:
        if self._let_go is not None:
            self._let_go()

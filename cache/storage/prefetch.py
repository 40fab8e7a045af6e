"""Downloading shards in the background before they are read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from cache.errors import CacheError
from cache.shard.record import ShardRecord

_THREADS = 2


class Prefetcher:
    """Downloads the shards last requested, in order; readers of a shard see its errors."""

    def __init__(self, download: Callable[[ShardRecord, Callable[[], bool]], None]) -> None:
        """Start the threads; `download(record, cancelled)` polls `cancelled` to stop early."""
        self._download = download
        self._requested: list[ShardRecord] = []
        self._changed = threading.Condition()
        self._closed = False
        for _ in range(_THREADS):
            threading.Thread(target=self._run, name="prefetch", daemon=True).start()

    def request(self, records: Sequence[ShardRecord]) -> None:
        """Download these shards in order; drop earlier requests that have not started."""
        with self._changed:
            self._requested = list(records)[::-1]
            self._changed.notify_all()

    def close(self) -> None:
        """Drop all requests, and abort downloads in progress."""
        with self._changed:
            self._requested, self._closed = [], True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested or self._closed)
                if self._closed:
                    return
                record = self._requested.pop()
            with contextlib.suppress(OSError, CacheError):
                self._download(record, lambda: self._closed)

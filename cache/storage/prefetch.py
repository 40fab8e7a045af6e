"""Bringing copies of shards that will be read soon, while others are read."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from cache.errors import CacheError
from cache.shard.record import ShardRecord
from cache.storage.interface import Place

_THREADS = 2


class Prefetcher:
    """Brings shards in the order in which they were asked for last; what goes wrong is left to
    whoever reads them."""

    def __init__(self, place: Place, records: Sequence[ShardRecord]) -> None:
        self._place, self._records = place, records
        self._wanted: list[int] = []
        self._changed = threading.Condition()
        self._closed = False
        for _ in range(_THREADS):
            threading.Thread(target=self._run, name="prefetch", daemon=True).start()

    def ask(self, shards: Sequence[int]) -> None:
        """Bring these from now on, the first ones first; what was asked for before and has not
        begun is forgotten."""
        with self._changed:
            self._wanted = list(shards)[::-1]
            self._changed.notify_all()

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._wanted, self._closed = [], True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closed)
                if self._closed:
                    return
                shard = self._wanted.pop()
            with contextlib.suppress(OSError, CacheError):
                self._place.hold(self._records[shard], unwanted=lambda: self._closed).let_go()

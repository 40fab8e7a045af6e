"""Shared prefixes kept in memory, still coded, up to a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from cache.shard.content import NO_PREFIX
from cache.shard.prefixes import Prefixes
from cache.shard.segment import CodedSegment, join_segments

PREFIX_BYTES = 64 << 20
"""Memory for prefixes per process."""


class PrefixCache:
    """Reads shared prefixes, and keeps the most recently used."""

    def __init__(
        self,
        read_segment: Callable[[int, int, Sequence[int]], CodedSegment],
        prefixes: Prefixes,
    ) -> None:
        """Read segments with `read_segment(record, segment, layers)`."""
        self._read_segment, self._prefixes = read_segment, prefixes
        self._kept: OrderedDict[tuple[int, tuple[int, ...]], CodedSegment] = OrderedDict()
        self._kept_bytes = 0
        self._lock = threading.Lock()

    def read(self, number: int, layers: tuple[int, ...]) -> CodedSegment | None:
        """Return all tokens up to the end of a prefix; None for `NO_PREFIX`.

        Raises:
            DamagedCacheError: they cannot be read.
        """
        if number == NO_PREFIX:
            return None
        key = number, layers
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        path = self._prefixes.path(number)
        whole = join_segments(
            [self._read_segment(prefix.record, prefix.segment, layers) for prefix in path]
        )
        with self._lock:
            if key not in self._kept:  # another thread may have read it meanwhile
                self._kept[key] = whole
                self._kept_bytes += whole.bytes
            while self._kept_bytes > PREFIX_BYTES and len(self._kept) > 1:
                self._kept_bytes -= self._kept.popitem(last=False)[1].bytes
        return whole

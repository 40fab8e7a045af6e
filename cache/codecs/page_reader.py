"""Reading entropy-coded pages, segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pcodec.wrapped import FileDecompressor

from cache.codecs.coded import CodedStates
from cache.codecs.interface import Readable
from cache.codecs.page_layout import read_layout
from cache.errors import DamagedCacheError


class PagedSegments:
    """The segments of a packed array. Threads may read concurrently: decoding releases the GIL."""

    def __init__(
        self, stored: Readable, size: int, hidden_size: int, lengths: Sequence[int] | None = None
    ) -> None:
        """Read the layout.

        Args:
            stored: the packed bytes.
            size: number of bytes.
            hidden_size: expected channels.
            lengths: expected tokens of each segment; None to accept any.

        Raises:
            DamagedCacheError: the bytes have another layout, or other segments.
        """
        self._stored = stored
        try:
            self._layout = read_layout(stored, size)
        except ValueError as error:
            raise DamagedCacheError(f"not klt pages ({error})") from error
        same = lengths is None or self.lengths.tolist() == list(lengths)
        if self._layout.channels != hidden_size or not same:
            raise DamagedCacheError("its klt pages have other tokens or channels than the journal")
        self._idle: list[list[Any]] = []

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """`[segments]` tokens of each segment."""
        return self._layout.index[:, 0].astype(np.int64)

    def release(self) -> None:
        """Free the decompressors; the next read creates them again."""
        self._idle = []

    def stored_range(self, segment: int) -> tuple[int, int]:
        """Return the start and end of a segment's bytes."""
        return int(self._layout.starts[segment]), int(self._layout.starts[segment + 1])

    def read(self, segment: int) -> CodedStates:
        """Return a segment's coded states.

        Raises:
            DamagedCacheError: its bytes are not valid pages.
        """
        layout = self._layout
        rows, kept, *sizes = layout.index[segment].tolist()
        body = self._stored.read(*self.stored_range(segment)).tobytes()
        values_DT = np.empty((layout.channels, rows), np.int16)
        place, channel, idle = 0, 0, self._idle
        try:
            decompressors = self._borrow() if rows else []
            for decompressor, width, size in zip(
                decompressors, layout.widths, sizes, strict=bool(rows)
            ):
                page = values_DT[channel : channel + width].reshape(-1)
                progress, read = decompressor.read_page_into(
                    body[place : place + size], rows * width, page
                )
                if read != size or progress.n_processed != rows * width:
                    raise ValueError("a page has another length")
                place, channel = place + size, channel + width
            if rows:
                idle.append(decompressors)  # dropped with the old list after `release`
        except (RuntimeError, ValueError) as error:
            raise DamagedCacheError(f"damaged klt pages ({error})") from error
        values_TD = values_DT.T.astype(layout.value_type, order="C")
        exact_rows = np.frombuffer(body, "<u4", kept, place).astype(np.int64)
        exact = np.frombuffer(body, "<u2", kept * layout.channels, place + 4 * kept).reshape(
            kept, layout.channels
        )
        if kept and not (exact_rows[-1] < rows and (np.diff(exact_rows) > 0).all()):
            raise DamagedCacheError("damaged klt pages (tokens kept exactly are not in order)")
        return CodedStates(values_TD, None, exact_rows, exact)

    def _borrow(self) -> list[Any]:
        """Return a decompressor for each group, about 20 KB each, for one thread at a time."""
        try:
            return self._idle.pop()
        except IndexError:
            opened, _ = FileDecompressor.new(self._layout.header)
            return [opened.chunk_decompressor(table, "i16")[0] for table in self._layout.tables]

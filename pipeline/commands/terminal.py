"""Standard streams that never make a command fail, whatever they are connected to."""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PLAIN = str.maketrans(
    {
        "…": "...",
        "–": "-",
        "—": "-",
        "→": "->",
        "±": "+-",
        "×": "x",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
    }
)
"""ASCII for the characters of our own texts, for terminals without them."""


def configure_streams() -> None:
    """Make the process's streams safe to read and write; streams set by a caller are kept."""
    _open_closed_descriptors()
    codecs.register_error("shown", _shown)
    if sys.stdin is sys.__stdin__:
        sys.stdin = _reading(sys.stdin)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writing(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writing(sys.stderr, 2)


def stdout_is_closed() -> bool:
    """Return whether the reader of stdout has closed it."""
    raw = getattr(sys.stdout, "buffer", None)
    raw = getattr(raw, "raw", raw)
    return isinstance(raw, _Output) and raw.is_gone


class _Output(io.FileIO):
    """A descriptor that discards output once its reader has closed it."""

    is_gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write; raise an error other than a closed reader once, and not again at exit."""
        if not memoryview(data).nbytes:  # click's probe of a stream hides errors
            return 0
        try:
            return super().write(data) or 0
        except OSError as error:
            self.is_gone = self._is_closed(error)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            if not self.is_gone:
                raise
            return memoryview(data).nbytes

    def _is_closed(self, error: OSError) -> bool:
        """Return whether a pipe or socket was closed, or a terminal hung up."""
        if error.errno == errno.EIO:
            return stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
        return error.errno in (errno.EPIPE, errno.ECONNRESET)


def _open_closed_descriptors() -> None:
    """Connect closed descriptors to the null device, or the next file opened gets the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one.
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(opened, True)


def _reading(stream: TextIO | None) -> TextIO:
    """Return a stdin that replaces invalid bytes."""
    if stream is None:
        return io.TextIOWrapper(
            io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8"
        )
    if isinstance(stream, io.TextIOWrapper):
        # Users of the C locale type UTF-8 all the same.
        is_ascii = codecs.lookup(stream.encoding).name == "ascii"
        stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")
    return stream


def _writing(stream: TextIO | None, number: int) -> TextIO:
    """Return a stream that shows any text as well as it can, and whose reader may close it."""
    raw = _Output(number, "w", closefd=False)
    if stream is None:
        return io.TextIOWrapper(
            io.BufferedWriter(raw), encoding="utf-8", errors="shown", line_buffering=number == 2
        )
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    is_unbuffered = isinstance(stream.buffer, io.RawIOBase)
    return io.TextIOWrapper(
        raw if is_unbuffered else io.BufferedWriter(raw),  # as Python itself does it
        encoding=stream.encoding,
        errors="shown",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode bytes of file names unchanged, and other characters as similar ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = character.translate(_PLAIN)
    return (plain if plain.isascii() else "?"), error.start + 1

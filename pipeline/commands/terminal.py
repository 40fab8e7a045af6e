"""The standard streams: whatever they are connected to, and however it encodes text, no command
fails because of them."""

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
"""What stands for characters of our own where the terminal has none of them."""


def settle_streams() -> None:
    """Make the process's own streams safe to read and write; streams that a caller has put in their
    place stay as they are."""
    _open_closed_descriptors()
    codecs.register_error("shown", _shown)
    if sys.stdin is sys.__stdin__:
        sys.stdin = _reading(sys.stdin)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writing(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writing(sys.stderr, 2)


def reader_has_gone() -> bool:
    """Whether nobody reads stdout any longer."""
    raw = getattr(sys.stdout, "buffer", None)
    raw = getattr(raw, "raw", raw)
    return isinstance(raw, _Output) and raw.is_gone


class _Output(io.FileIO):
    """A descriptor that goes on taking bytes when its reader has gone: the work that a command does
    is worth ending well."""

    is_gone = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write; an error other than of a reader that has gone is raised once, and not again when
        the process ends."""
        if not memoryview(
            data
        ).nbytes:  # click finds out so what a stream takes, and hides the error
            return 0
        try:
            return super().write(data) or 0
        except OSError as error:
            self.is_gone = self._nobody_reads(error)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            if not self.is_gone:
                raise
            return memoryview(data).nbytes

    def _nobody_reads(self, error: OSError) -> bool:
        """Of a pipe, a socket, or a terminal that was hung up."""
        if error.errno == errno.EIO:
            return stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
        return error.errno in (errno.EPIPE, errno.ECONNRESET)


def _open_closed_descriptors() -> None:
    """Connect closed ones with nothing, or the next file that is opened gets their number, and what
    is printed with it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(
                os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY
            )  # gets the lowest free number: this one
            os.set_inheritable(opened, True)


def _reading(stream: TextIO | None) -> TextIO:
    """A stdin whose broken bytes are no error."""
    if stream is None:
        return io.TextIOWrapper(
            io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8"
        )
    if isinstance(stream, io.TextIOWrapper):
        is_ascii = (
            codecs.lookup(stream.encoding).name == "ascii"
        )  # the C locale, whose users type UTF-8 all the same
        stream.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")
    return stream


def _writing(stream: TextIO | None, number: int) -> TextIO:
    """A stream that shows what it can of any text, and that may lose its reader."""
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
    """Bytes of file names as they are, of other characters the nearest that every encoding has."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = character.translate(_PLAIN)
    return (plain if plain.isascii() else "?"), error.start + 1

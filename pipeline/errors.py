"""The two ways a command can fail, each with its exit status."""

from __future__ import annotations


class InputError(Exception):
    """Unusable options or files: one line names what, where and how to fix it (exit status 2)."""


class RowError(InputError):
    """An unusable row of a data set; the other rows may be usable.

    Attributes:
        kind: a short reason, under which skipped rows are counted.
    """

    def __init__(self, message: str, kind: str = "malformed") -> None:
        """Name the field and the problem; the caller adds file and row."""
        super().__init__(message)
        self.kind = kind


class RunError(Exception):
    """A run that failed after it started: one line says why and how to continue (exit status 1)."""


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

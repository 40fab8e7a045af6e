"""The ways a command can end badly, each with its exit status."""

from __future__ import annotations


class InputError(Exception):
    """The user's words or files are not usable: one line says what, where and how to mend it (exit
    status 2)."""


class RowError(InputError):
    """One row of a data set is not usable; the rest may be.

    Attributes:
        kind: why, in a few words, under which such rows are counted when they are skipped.
    """

    def __init__(self, message: str, kind: str = "malformed") -> None:
        """Name the field and the fault; the reader of the rows adds file and row."""
        super().__init__(message)
        self.kind = kind


class RunError(Exception):
    """A run that began well could not finish: one line says why and how to go on (exit status
    1)."""


def reason(error: BaseException) -> str:
    """The first line of what a library says, or the error's kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""The two ways a command can end badly, told apart by exit status."""

from __future__ import annotations


class InputError(Exception):
    """The user's words or files are not usable: one line says what, where and how to mend it (exit status 2)."""


class RunError(Exception):
    """A run that began well could not finish: one line says why and how to go on (exit status 1)."""


def reason(error: BaseException) -> str:
    """The first line of what a library says, or the error's kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

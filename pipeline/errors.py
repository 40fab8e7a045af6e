"""The two ways a command can end badly, told apart by exit status."""

from __future__ import annotations


class InputError(Exception):
    """The user's words or files are not usable: one line says what, where and how to mend it (exit status 2)."""


class RunError(Exception):
    """A run that began well could not finish: one line says why and how to go on (exit status 1)."""

"""A custom score: a Python function, named `module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.scoring.interface import Score


@dataclass(frozen=True)
class CustomScore(Score):
    """A score by a user's function.

    Attributes:
        path: `module:function`, as in `--score`.
        function: takes answer and reference, and returns a number from 0 to 1, or a bool.
    """

    path: str
    function: Callable[[str, str], Any]
    graded = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the path, as in `--score`."""
        return self.path

    @property
    def definition(self) -> str:  # type: ignore[override]
        """Return the path, with the first line of the function's docstring."""
        lines = (self.function.__doc__ or "").strip().splitlines()
        return f"{self.path}, 0 to 1, averaged over rows" + (f": {lines[0]}" if lines else "")

    def score(self, answer: str, reference: str) -> float:
        """Return the function's result.

        Raises:
            InputError: it fails, or returns anything but a number from 0 to 1.
        """
        try:
            value = self.function(answer, reference)
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"--score {self.path}: failed for the answer {answer[:60]!r}"
                f" ({type(error).__name__}: {error}); fix the function"
            ) from error
        value = value.item() if hasattr(value, "item") else value  # NumPy and PyTorch scalars
        if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
            raise InputError(
                f"--score {self.path}: returned {value!r} for the answer {answer[:60]!r}; return a"
                " number from 0 to 1, or a bool"
            )
        return float(value)


def load_custom_score(path: str) -> CustomScore:
    """Import a scoring function; its module may be in the current folder.

    Raises:
        InputError: there is no such module or function.
    """
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # importing runs the user's code
        raise InputError(
            f"--score {path}: cannot be imported ({type(error).__name__}: {error}); check the name"
            " and run from the module's folder"
        ) from error
    if not callable(function):
        raise InputError(
            f"--score {path}: of type {type(function).__name__}; name a function of answer and"
            " reference"
        )
    return CustomScore(path, function)

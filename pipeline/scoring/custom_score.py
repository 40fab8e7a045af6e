"""A score of the user's own: a function named `module:function`."""

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
    """What a function of the user's gives.

    Attributes:
        path: as `--score` names it.
        function: from an answer and a reference to a number from 0 to 1, or a truth value.
    """

    path: str
    function: Callable[[str, str], Any]
    graded = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """As `--score` names it."""
        return self.path

    @property
    def definition(self) -> str:  # type: ignore[override]
        """What the function says of itself."""
        lines = (self.function.__doc__ or "").strip().splitlines()
        return f"{self.path}, 0 to 1, averaged over rows" + (f": {lines[0]}" if lines else "")

    def score(self, answer: str, reference: str) -> float:
        """What the function gives.

        Raises:
            InputError: it fails, or gives something else than a number from 0 to 1.
        """
        try:
            value = self.function(answer, reference)
        except Exception as error:  # the user's code may raise anything
            raise InputError(
                f"--score {self.path}: {type(error).__name__}: {error} (of answer {answer[:60]!r})"
            ) from error
        value = (
            value.item() if hasattr(value, "item") else value
        )  # a number of NumPy's or PyTorch's
        if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
            raise InputError(
                f"--score {self.path}: gave {value!r} for the answer {answer[:60]!r}; a score is a"
                " number from 0 to 1, or a bool"
            )
        return float(value)


def load_custom_score(path: str) -> CustomScore:
    """Import a function; modules of the current folder are found.

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
            f"--score {path}: cannot be imported ({type(error).__name__}: {error})"
        ) from error
    if not callable(function):
        raise InputError(
            f"--score {path}: is a {type(function).__name__}, not a function of answer and"
            " reference"
        )
    return CustomScore(path, function)

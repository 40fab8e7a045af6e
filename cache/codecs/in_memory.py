"""A stored array in memory."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


class InMemoryArray:
    """An array in memory with the interface of a stored one."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return items `start` to `stop`."""
        return self._values[start:stop]

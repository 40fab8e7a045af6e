"""A parameter that names teacher layers."""

from __future__ import annotations

from typing import Any

import click


class LayerList(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse `-1,0`."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of layers such as -1 or -1,0", param, ctx)

"""Parameters that are comma-separated lists of teacher layers or names."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import click

AUTO = "auto"
ItemT = TypeVar("ItemT")


class Listed(click.ParamType[tuple[ItemT, ...]], Generic[ItemT]):
    """Several values in one parameter; an options file may list them."""


class LayerList(Listed[int]):
    """Comma-separated integers; or, where it is allowed, `auto`, which is an empty tuple."""

    name = "layers"

    def __init__(self, *, takes_auto: bool = False) -> None:
        self.takes_auto = takes_auto

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse `-1,0`."""
        if isinstance(value, tuple):
            return value
        if self.takes_auto and value == AUTO:
            return ()
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of layers such as -1 or -1,0", param, ctx)


class NameList(Listed[str]):
    """Names separated by commas or spaces."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Parse `one,two`."""
        return value if isinstance(value, tuple) else tuple(str(value).replace(",", " ").split())

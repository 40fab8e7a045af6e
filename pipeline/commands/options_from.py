"""Click options made from settings: each field that is annotated with an `Option` becomes one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import cloup
from click.core import ParameterSource

from pipeline.commands.list_parameters import LayerList, NameList
from pipeline.option import EARLIER_NAMES, EARLIER_VALUES, Option

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def option_section(
    title: str, settings: type, *first: Decorator, fields: Collection[str] | None = None
) -> Decorator:
    """Return a decorator that gives a command a section of options.

    Args:
        title: heading in the help.
        settings: a dataclass. Its own fields are taken; inherited ones belong to other sections.
        first: options before those of the fields, as click's decorators.
        fields: take these fields alone, inherited or not.
    """
    hints = get_type_hints(settings, include_extras=True)
    names = settings.__annotations__ if fields is None else fields
    options = [
        _click_option(field, hints[field.name])
        for field in dataclasses.fields(settings)
        if field.name in names and get_origin(hints[field.name]) is Annotated
    ]
    decorator: Decorator = cloup.option_group(title, *first, *options)
    return decorator


def take_fields(settings: type, options: dict[str, Any]) -> dict[str, Any]:
    """Remove a settings class's values from a command's options, and return them."""
    return {field.name: options.pop(field.name) for field in dataclasses.fields(settings)}


def is_given(name: str) -> bool:
    """Return whether an option of the running command has a value from the user or their file."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source is not ParameterSource.DEFAULT


def _click_option(field: dataclasses.Field[Any], hint: Any) -> Decorator:
    """Return the option of a field."""
    value_type, option = get_args(hint)
    value_type = _without_none(value_type)
    flag = f"--{(option.name or field.name).replace('_', '-')}"
    earlier = [
        f"--{name.replace('_', '-')}" for name, now in EARLIER_NAMES.items() if now == field.name
    ]
    arguments: dict[str, Any] = {"help": option.help}
    if field.default is dataclasses.MISSING:
        arguments["required"] = True
    elif option.default is not None:
        arguments |= {
            "default": field.default,
            "help": f"{option.help}  [default: {option.default}]",
        }
    else:
        unset = field.default is None or field.default is False or field.default == ()
        arguments |= {"default": field.default, "show_default": not unset}
    if value_type is bool:
        flag += f"/--no-{flag[2:]}" if field.default or option.negatable else ""
        return click.option(flag, field.name, is_flag=True, **arguments)
    return click.option(
        flag,
        *earlier,
        field.name,
        metavar=option.metavar,
        **arguments,
        **_parameter_type(value_type, option, EARLIER_VALUES.get(field.name, {})),
    )


def _parameter_type(value_type: Any, option: Option, earlier: dict[str, str]) -> dict[str, Any]:
    """Return click's arguments for a type of values."""
    if value_type == tuple[int, ...]:
        return {"type": LayerList(takes_auto=option.takes_auto)}
    if option.with_commas:
        return {"type": NameList()}
    if get_origin(value_type) is tuple:
        return _parameter_type(get_args(value_type)[0], option, earlier) | {"multiple": True}
    choices = option.choices or (get_args(value_type) if get_origin(value_type) is Literal else ())
    if choices:
        return {"type": _Choice(choices, earlier) if earlier else click.Choice(choices)}
    if value_type in (int, float):
        return {"type": _number(value_type, option)}
    if value_type is Path:
        return {"type": click.Path(exists=option.exists, path_type=Path)}
    return {"type": str}


class _Choice(click.Choice[str]):
    """A choice of names, some of which had other names in an earlier release."""

    def __init__(self, choices: Collection[str], earlier: dict[str, str]) -> None:
        super().__init__(choices)
        self._earlier = earlier

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name that a value has now."""
        return super().convert(self._earlier.get(value, value), param, ctx)


def _number(value_type: type, option: Option) -> click.ParamType[Any]:
    lowest = option.at_least if option.above is None else option.above
    highest = option.at_most if option.below is None else option.below
    if lowest is None and highest is None:
        return click.INT if value_type is int else click.FLOAT
    range_type: Any = click.IntRange if value_type is int else click.FloatRange
    number: click.ParamType[Any] = range_type(
        lowest, highest, min_open=option.above is not None, max_open=option.below is not None
    )
    return number


def _without_none(value_type: Any) -> Any:
    """Return X for `X | None`, and str for other unions, such as a location's."""
    if get_origin(value_type) in (Union, UnionType):
        parts = [part for part in get_args(value_type) if part is not NoneType]
        return parts[0] if len(parts) == 1 else str
    return value_type

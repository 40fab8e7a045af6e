"""Dataclasses as JSON objects, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


OPTIONAL: dict[str, Any] = {"optional": True}
"""Metadata of a field that is left out of JSON where it is None."""


def key(name: str) -> dict[str, Any]:
    """Return the metadata of a field that has another name in JSON."""
    return {"key": name}


def to_json(value: Any) -> Any:
    """Return dataclasses, however nested, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(own, getattr(value, own.name)) for own in fields(value)]
        return {
            _key(own): to_json(content)
            for own, content in pairs
            if content is not None or not own.metadata.get("optional")
        }
    if isinstance(value, dict):
        return {key: to_json(content) for key, content in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def from_json(kind: type[T], value: Any) -> T:
    """Return a JSON object as a dataclass; ignore unknown keys, and default missing ones.

    Raises:
        KeyError, TypeError, ValueError: a field without a default is missing, or of another type.
    """
    result: T = _read(kind, value)
    return result


def _read(kind: Any, value: Any) -> Any:
    make: Callable[..., Any] = kind
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        (inner,) = [argument for argument in arguments if argument is not NoneType]
        return None if value is None else _read(inner, value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        given = {own.name: value[_key(own)] for own in fields(kind) if _key(own) in value}
        return make(**{name: _read(hints[name], content) for name, content in given.items()})
    if origin is tuple and isinstance(value, list):
        return tuple(_read(own, item) for own, item in zip(arguments, value, strict=True))
    if origin is list and isinstance(value, list):
        return [_read(arguments[0], item) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _read(arguments[1], content) for key, content in value.items()}
    if origin is not None or not isinstance(value, (int, float) if kind is float else kind):
        raise TypeError(f"{value!r} is not {kind}")
    return value


def _key(own: Field[Any]) -> str:
    return str(own.metadata.get("key") or own.name)

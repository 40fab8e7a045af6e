"""Dataclasses written as JSON objects, and read back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

OPTIONAL: dict[str, Any] = {"optional": True}
"""Metadata of a field that is omitted from JSON if it is None."""


class UnknownContentError(ValueError):
    """JSON has keys or choices that its dataclass does not have, as a newer version may write."""


def key(name: str) -> dict[str, Any]:
    """Return the metadata of a field that has another name in JSON."""
    return {"key": name}


def to_json(value: Any) -> Any:
    """Return dataclasses, however nested, as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = [(item, getattr(value, item.name)) for item in fields(value)]
        return {
            _key(item): to_json(content)
            for item, content in pairs
            if content is not None or not item.metadata.get("optional")
        }
    if isinstance(value, dict):
        return {key: to_json(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[T], value: Any, *, ignore_unknown: bool = True) -> T:
    """Return a JSON object as a dataclass; missing fields get their defaults.

    Args:
        kind: the dataclass.
        value: the JSON value.
        ignore_unknown: ignore keys that the dataclass does not have.

    Raises:
        UnknownContentError: an unknown key, or an unknown value of a Literal; names it.
        ValueError: a field without a default is missing, or a value has another type; names it.
    """
    result: T = _Reader(ignore_unknown=ignore_unknown).read(kind, value, "")
    return result


class _Reader:
    """Reads JSON values as typed; `name` is the dotted path of keys, for error messages."""

    def __init__(self, *, ignore_unknown: bool) -> None:
        self._ignore_unknown = ignore_unknown

    def read(self, kind: Any, value: Any, name: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return value
        if origin in (Union, UnionType):
            return self._read_union(arguments, value, name)
        if is_dataclass(kind) and isinstance(value, dict):
            return self._read_object(kind, value, name)
        if origin is tuple and isinstance(value, list):
            if arguments[-1] is Ellipsis:
                arguments = (arguments[0],) * len(value)
            if len(arguments) == len(value):
                pairs = zip(arguments, value, strict=True)
                return tuple(self.read(item_kind, item, name) for item_kind, item in pairs)
        if origin is list and isinstance(value, list):
            return [self.read(arguments[0], item, name) for item in value]
        if origin is dict and isinstance(value, dict):
            return {
                key: self.read(arguments[1], item, _joined(name, key))
                for key, item in value.items()
            }
        if kind is Path and isinstance(value, str):
            return Path(value)
        if origin is Literal:
            return self._read_choice(arguments, value, name)
        accepted = (int, float) if kind is float else kind
        if origin is not None or not isinstance(value, accepted):
            raise ValueError(f"{_prefix(name)}{value!r} is not {_described(kind)}")
        return value

    def _read_choice(self, choices: tuple[Any, ...], value: Any, name: str) -> Any:
        if value in choices:
            return value
        names = ", ".join(map(str, choices))
        error = UnknownContentError if isinstance(value, str) else ValueError
        raise error(f"{_prefix(name)}{value!r} is not one of {names}")

    def _read_union(self, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
        """Return the value as the first type that fits; the error is that of the first one."""
        if value is None and NoneType in kinds:
            return None
        first_error: ValueError | None = None
        for kind in kinds:
            if kind is NoneType:
                continue
            try:
                return self.read(kind, value, name)
            except ValueError as error:
                first_error = first_error or error
        assert first_error is not None
        raise first_error

    def _read_object(self, kind: Any, value: dict[str, Any], name: str) -> Any:
        make: Callable[..., Any] = kind
        by_key = {_key(item): item for item in fields(kind)}
        unknown = sorted(value.keys() - by_key.keys())
        if unknown and not self._ignore_unknown:
            raise UnknownContentError(
                f"{_prefix(name)}unknown to this version of the program: {', '.join(unknown)}"
            )
        hints = get_type_hints(kind)
        given = {
            item.name: self.read(hints[item.name], value[key], _joined(name, key))
            for key, item in by_key.items()
            if key in value
        }
        missing = [
            key
            for key, item in by_key.items()
            if item.name not in given
            and item.default is MISSING
            and item.default_factory is MISSING
        ]
        if missing:
            raise ValueError(f"{_prefix(name)}without {', '.join(missing)}")
        return make(**given)


def _key(item: Field[Any]) -> str:
    return str(item.metadata.get("key") or item.name)


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""


def _described(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)

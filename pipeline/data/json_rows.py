"""Rows in JSON: one object a line, or an array of objects. A row that cannot be read costs no other
row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from pipeline.errors import RowError

_LONGEST_INTEGER = 4000
"""Digits of an integer; Python refuses more than 4,300."""
_NEXT = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},]', re.DOTALL)


def json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any] | RowError]:
    """The rows of a file of one object a line; empty lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield parse_row(line, f"line {number} ")


def json_array(text: str) -> Iterator[dict[str, Any] | RowError]:
    """The rows of an array.

    Raises:
        ValueError: the text is no array, or ends before it does.
    """
    try:
        rows = _parse(text)
    except (ValueError, RecursionError) as error:
        yield from (parse_row(element, "") for element in _elements(text, error))
        return
    if not isinstance(rows, list):
        raise ValueError("not an array of rows")
    for row in rows:
        yield row if isinstance(row, dict) else RowError("is not a JSON object")


def parse_row(text: str, where: str) -> dict[str, Any] | RowError:
    """One row's object, or what is wrong with it."""
    try:
        row = _parse(
            text.lstrip("\ufeff")
        )  # a byte order mark also begins each of several files that were joined
    except json.JSONDecodeError as error:
        return RowError(f"{where}is not JSON ({error.msg} at character {error.pos + 1})")
    except ValueError as error:
        return RowError(f"{where}is not JSON ({error})")
    except RecursionError:
        return RowError(f"{where}nests too deep to be read as JSON")
    return row if isinstance(row, dict) else RowError(f"{where}is not a JSON object")


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_integer, parse_float=_finite, object_pairs_hook=_object)


def _finite(digits: str) -> float | Decimal:
    value = float(digits)
    return value if math.isfinite(value) else Decimal(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} is there twice in"
            " one object"
        )
    return found


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else Decimal(digits)


def _elements(text: str, error: Exception) -> Iterator[str]:
    """The elements of an array that has at least one that cannot be parsed, found by their brackets
    and commas."""
    if not text.lstrip().startswith("["):
        raise ValueError(f"not an array of rows ({error})")
    start, depth = text.index("[") + 1, 0
    for found in _NEXT.finditer(text, start):
        mark = found[0]
        if mark in "[{":
            depth += 1
        elif mark in "]}" and depth:
            depth -= 1
        elif mark in "],}" and not depth:
            if element := text[start : found.start()].strip():
                yield element
            start = found.end()
            if mark != ",":
                if rest := text[start:].strip():
                    raise ValueError(f"{rest[:20]!r} follows the array")
                return
    raise ValueError(f"the array does not end ({error})")

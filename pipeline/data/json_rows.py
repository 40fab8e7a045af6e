"""Rows in JSON: JSON lines, or an array of objects. An unreadable row affects no other row."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from pipeline.errors import RowError

_LONGEST_INTEGER = 4000
"""In digits; Python refuses integers of more than 4,300."""
_NEXT_MARK = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{},]', re.DOTALL)


def json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any] | RowError]:
    """Yield the rows of JSON lines; empty lines are skipped."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield parse_row(line, f"line {number} ")


def json_array(text: str) -> Iterator[dict[str, Any] | RowError]:
    """Yield the rows of an array.

    Raises:
        ValueError: the text is not an array, or the array is incomplete.
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
    """Return a row's object, or an error that says why it cannot be read."""
    try:
        row = _parse(text.lstrip("\ufeff"))  # concatenated files have several byte order marks
    except json.JSONDecodeError as error:
        return RowError(f"{where}is not JSON ({error.msg} at character {error.pos + 1})")
    except ValueError as error:
        return RowError(f"{where}is not JSON ({error})")
    except RecursionError:
        return RowError(f"{where}is JSON that is nested too deeply")
    return row if isinstance(row, dict) else RowError(f"{where}is not a JSON object")


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_integer, parse_float=_finite, object_pairs_hook=_object)


def _finite(digits: str) -> float | Decimal:
    value = float(digits)
    return value if math.isfinite(value) else Decimal(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated!r} occurs twice in one object")
    return fields


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else Decimal(digits)


def _elements(text: str, error: Exception) -> Iterator[str]:
    """Split an array with an unparsable element at its brackets and commas."""
    if not text.lstrip().startswith("["):
        raise ValueError(f"not an array of rows ({error})")
    start, depth = text.index("[") + 1, 0
    for match in _NEXT_MARK.finditer(text, start):
        mark = match[0]
        if mark in "[{":
            depth += 1
        elif mark in "]}" and depth:
            depth -= 1
        elif mark in "],}" and not depth:
            if element := text[start : match.start()].strip():
                yield element
            start = match.end()
            if mark != ",":
                if rest := text[start:].strip():
                    raise ValueError(f"{rest[:20]!r} follows the array")
                return
    raise ValueError(f"the array is incomplete ({error})")

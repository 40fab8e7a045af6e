"""Validation of a row's fields: texts, lists of token ids, tool definitions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.data.conversations import TokenRow, Turn, json_text
from pipeline.errors import RowError

_NOT_LEARNED = -100
"""The label of a token without loss, by PyTorch's convention."""


def has_content(value: Any) -> bool:
    """Return whether a field has any content."""
    return value is not None and not (isinstance(value, (str, list, tuple, dict)) and not value)


def text_of(
    row: Mapping[str, Any], field: str, where: str = "", *, may_be_empty: bool = False
) -> str:
    """Return a text field; `where` precedes its name in messages.

    Raises:
        RowError: it is missing, empty, of another type, or not valid Unicode.
    """
    value = row.get(field)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        problem = "missing" if value is None else f"of type {type(value).__name__}, not text"
        raise RowError(f"field {where + field!r} is {problem}")
    if not value.strip() and not may_be_empty:
        raise RowError(f"field {where + field!r} is empty")
    require_unicode(value, where + field)
    return value


def require_unicode(value: str, field: str) -> None:
    """Refuse text with lone surrogates: a byte that is not UTF-8, or half of an escape.

    Raises:
        RowError: names the field and the position.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        problem = (
            f"byte 0x{code - 0xDC00:02x} is not UTF-8" if 0xDC80 <= code <= 0xDCFF else error.reason
        )
        raise RowError(
            f"field {field!r} is not valid Unicode ({problem}, at character {error.start + 1})"
        ) from error


def json_of(value: Any, field: str) -> Any:
    """Return the value of a JSON field, which may be given as text.

    Raises:
        RowError: the text is not JSON, or JSON cannot represent the value.
    """
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
        text = json_text(parsed)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(f"field {field!r} is not JSON ({error})") from error
    require_unicode(text, field)
    return parsed


def tools_of(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the definitions in the column `tools` as a turn, or no turn if there are none.

    Raises:
        RowError: the column is not a list of function definitions.
    """
    if not has_content(row.get("tools")):
        return ()
    tools = json_of(row["tools"], "tools")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError("field 'tools' is not a list of function definitions")
    if bad := next(
        (tool for tool in tools if not isinstance(function_of(tool).get("name"), str)), None
    ):
        raise RowError(
            f"field 'tools' contains {json_text(bad)[:60]!r}, which has no function with a 'name'"
        )
    return (Turn("tools", json_text(tools)),) if tools else ()


def function_of(tool: dict[str, Any]) -> dict[str, Any]:
    """Return the function that a tool defines, either directly or under `function`."""
    function = tool.get("function") or tool
    return function if isinstance(function, dict) else {}


def tokens_of(row: Mapping[str, Any]) -> TokenRow:
    """Return the tokens of an already tokenised row, without padding.

    The loss mask is the column `loss_mask`, or true where `labels` is not -100.

    Raises:
        RowError: a list is missing, of another length or type, or a label differs from its token.
    """
    import numpy as np  # here: `--help` lists the names of forms without loading any library

    ids = _integers(row, "input_ids")
    if has_content(row.get("loss_mask")):
        mask = _integers(row, "loss_mask")
        if bad := {*mask} - {0, 1}:
            raise RowError(f"field 'loss_mask' contains {min(bad)}; use 0 and 1")
    else:
        labels = _integers(row, "labels", _NOT_LEARNED)
        _require_length(labels, ids, "labels")
        mask = [int(label != _NOT_LEARNED) for label in labels]
        for index, (label, token) in enumerate(zip(labels, ids, strict=True)):
            if label not in (_NOT_LEARNED, token):
                raise RowError(
                    f"field 'labels' is {label} at index {index}, where input_ids is {token}; use"
                    f" the token at the same index (not the next one) or {_NOT_LEARNED}"
                )
    _require_length(mask, ids, "loss_mask")
    kept = [1] * len(ids)
    if has_content(row.get("attention_mask")):
        kept = _integers(row, "attention_mask")
        _require_length(kept, ids, "attention_mask")
    keep = np.asarray(kept, bool)
    return TokenRow(np.asarray(ids, np.int32)[keep], np.asarray(mask, bool)[keep])


def _integers(row: Mapping[str, Any], field: str, lowest: int = 0) -> list[int]:
    value = row.get(field)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RowError(
            f"field {field!r} is {'missing' if value is None else 'not a list of integers'}"
        )
    for index, item in enumerate(value):
        if isinstance(item, Decimal) or not isinstance(item, int) or not lowest <= item < 2**31:
            raise RowError(
                f"field {field!r} is {str(item)[:40]!r} at index {index}, which is not an integer"
                f" from {lowest} to {2**31 - 1}"
            )
    return [int(item) for item in value]


def _require_length(values: Sequence[int], ids: Sequence[int], field: str) -> None:
    if len(values) != len(ids):
        raise RowError(f"field {field!r} has {len(values)} values, but input_ids has {len(ids)}")

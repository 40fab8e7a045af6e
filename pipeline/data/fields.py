"""Single fields of a row, checked: texts, lists of token ids, definitions of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.data.conversations import TokenRow, Turn, canonical
from pipeline.errors import RowError

_NOT_LEARNED = -100
"""The label of a token without loss, by PyTorch's convention."""


def has_content(value: Any) -> bool:
    """Whether a field says anything."""
    return value is not None and not (isinstance(value, (str, list, tuple, dict)) and not value)


def text_of(
    row: Mapping[str, Any], field: str, where: str = "", *, may_be_empty: bool = False
) -> str:
    """A field's text; `where` comes before the field's name in messages.

    Raises:
        RowError: it is missing, of another type, empty, or has characters that are no Unicode.
    """
    value = row.get(field)
    if value is None and may_be_empty:
        return ""
    if not isinstance(value, str):
        found = "missing" if value is None else f"of type {type(value).__name__}, not text"
        raise RowError(f"field {where + field!r} is {found}")
    if not value.strip() and not may_be_empty:
        raise RowError(f"field {where + field!r} is empty")
    require_unicode(value, where + field)
    return value


def require_unicode(value: str, field: str) -> None:
    """Refuse text with lone surrogates: a byte that is no UTF-8, or half of an escape.

    Raises:
        RowError: names the field and the place.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = value[error.start]
        bad = (
            f"byte 0x{ord(found) - 0xDC00:02x} is no UTF-8"
            if 0xDC80 <= ord(found) <= 0xDCFF
            else error.reason
        )
        raise RowError(
            f"field {field!r} has a broken character ({bad}, at character {error.start + 1})"
        ) from error


def json_of(value: Any, field: str) -> Any:
    """A field that is JSON: a value, or its text.

    Raises:
        RowError: the text is no JSON, or holds what JSON cannot say.
    """
    try:
        found = json.loads(value) if isinstance(value, str) else value
        text = canonical(found)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(f"field {field!r} is not JSON ({error})") from error
    require_unicode(text, field)
    return found


def tools_of(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The definitions in the column `tools`, as a turn; nothing where there are none.

    Raises:
        RowError: it is not a list of objects.
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
            f"field 'tools' has {canonical(bad)[:60]!r}, which defines no function with a 'name'"
        )
    return (Turn("tools", canonical(tools)),) if tools else ()


def function_of(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool's definition of its function, with or without a frame around it."""
    function = tool.get("function") or tool
    return function if isinstance(function, dict) else {}


def tokens_of(row: Mapping[str, Any]) -> TokenRow:
    """The tokens of a row that is tokenised already, its padding left out.

    The loss mask is `loss_mask`, or marks the labels other than -100.

    Raises:
        RowError: a list is missing, of another length or type, or a label is not its token.
    """
    import numpy as np  # here: the names of forms are wanted before any library is

    ids = _integers(row, "input_ids")
    if has_content(row.get("loss_mask")):
        mask = _integers(row, "loss_mask")
        if bad := {*mask} - {0, 1}:
            raise RowError(f"field 'loss_mask' has {min(bad)}; it takes 0 and 1")
    else:
        labels = _integers(row, "labels", _NOT_LEARNED)
        _require_length(labels, ids, "labels")
        mask = [int(label != _NOT_LEARNED) for label in labels]
        for place, (label, token) in enumerate(zip(labels, ids, strict=True)):
            if label not in (_NOT_LEARNED, token):
                raise RowError(
                    f"field 'labels' has {label} at token {place}, where input_ids has {token}; a"
                    f" label is its own token (not the next one's) or {_NOT_LEARNED}"
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
            f"field {field!r} is {'missing' if value is None else 'not a list of whole numbers'}"
        )
    for place, item in enumerate(value):
        if isinstance(item, Decimal) or not isinstance(item, int) or not lowest <= item < 2**31:
            raise RowError(
                f"field {field!r} has {str(item)[:40]!r} at place {place}, which is no token id or"
                " mask"
            )
    return [int(item) for item in value]


def _require_length(values: Sequence[int], ids: Sequence[int], field: str) -> None:
    if len(values) != len(ids):
        raise RowError(f"field {field!r} has {len(values)} values, input_ids {len(ids)}")

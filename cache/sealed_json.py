"""JSON objects whose last field is the SHA-256 of the bytes before it, to detect damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_DIGITS = 64
# The bytes before and after the checksum, on one line and indented.
_ON_ONE_LINE = (b',"sha256":"', b'"}')
_INDENTED = (b',\n "sha256": "', b'"\n}\n')


def canonical_json(value: Any) -> bytes:
    """Return the canonical encoding of a JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(content: dict[str, Any], *, indented: bool = False) -> bytes:
    """Return a non-empty JSON object with its checksum as the last field.

    Args:
        content: fields of the object.
        indented: on several lines, with a final newline; else on one line.
    """
    if indented:
        body = (
            json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
            .encode()
            .removesuffix(b"\n}")
        )
    else:
        body = canonical_json(content).removesuffix(b"}")
    before, after = _INDENTED if indented else _ON_ONE_LINE
    return body + before + hashlib.sha256(body).hexdigest().encode() + after


def unseal(text: bytes) -> dict[str, Any]:
    """Check all bytes of a sealed object, and return its content.

    Raises:
        ValueError: it is not a sealed JSON object, or was changed.
    """
    for before, after in (_ON_ONE_LINE, _INDENTED):
        body = text[: -(len(before) + _DIGITS + len(after))]
        if body and text == body + before + hashlib.sha256(body).hexdigest().encode() + after:
            break
    else:
        raise ValueError("its checksum is missing or does not match its content")
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    content.pop("sha256", None)
    return content

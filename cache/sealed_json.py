"""JSON objects that end with the SHA-256 of the bytes before it, to detect damage."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_DIGITS = 64
# The bytes before and after the checksum: of an object on one line, and of one spread over lines.
_ON_A_LINE = (b',"sha256":"', b'"}')
_SPREAD = (b',\n "sha256": "', b'"\n}\n')


def canonical_json(value: Any) -> bytes:
    """Return the one encoding of a JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(content: dict[str, Any], *, spread: bool = False) -> bytes:
    """Return a non-empty JSON object with its checksum as the last field.

    Args:
        content: of the object.
        spread: over lines, the last one ended; else on one line.
    """
    if spread:
        body = (
            json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
            .encode()
            .removesuffix(b"\n}")
        )
    else:
        body = canonical_json(content).removesuffix(b"}")
    before, after = _SPREAD if spread else _ON_A_LINE
    return body + before + hashlib.sha256(body).hexdigest().encode() + after


def unseal(text: bytes) -> dict[str, Any]:
    """Return the content of a sealed object, all of whose bytes are checked.

    Raises:
        ValueError: it is not a sealed JSON object, or has changed.
    """
    for before, after in (_ON_A_LINE, _SPREAD):
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

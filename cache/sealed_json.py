"""JSON objects that end with the SHA-256 of all bytes before it, so that a flipped byte in manifest
or journal is found."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_DIGITS = 64
# What stands before and after the checksum, in an object on one line and in one spread over lines
# for people to read.
_ON_A_LINE = (b',"sha256":"', b'"}')
_SPREAD = (b',\n "sha256": "', b'"\n}\n')


def canonical_json(value: Any) -> bytes:
    """One spelling for each JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(content: dict[str, Any], *, spread: bool = False) -> bytes:
    """A JSON object, not empty, with its checksum as the last field; on one line, or spread over
    many and ended."""
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
    """Compare a sealed object with its checksum, parse it, and take the checksum off. No byte of it
    is left unchecked.

    Raises:
        ValueError: it is not a JSON object, or not the one that was sealed.
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

"""JSON objects that carry their own checksum, so that a flipped byte in the manifest or the journal is found too."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_SEAL = "sha256"


def canonical_json(value: Any) -> bytes:
    """One spelling for each JSON value: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """The object with the checksum of its canonical spelling added."""
    return {**content, _SEAL: hashlib.sha256(canonical_json(content)).hexdigest()}


def unseal(text: bytes) -> dict[str, Any]:
    """Parse a sealed object and take the checksum off.

    Raises:
        ValueError: it is not a JSON object, or not the one that was sealed.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    found = content.pop(_SEAL, None)
    if found != hashlib.sha256(canonical_json(content)).hexdigest():
        raise ValueError("its checksum does not match its content")
    return content

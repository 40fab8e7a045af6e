"""Dataclasses are written as JSON and read back, with their types checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.json_dataclasses import OPTIONAL, UnknownContentError, from_json, key, to_json


@dataclass(frozen=True)
class Inner:
    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner
    layers: tuple[int, ...] = (-1,)
    interval: tuple[float, float] | None = None
    gate: Literal["channel", "none"] = "channel"
    folder: Path = Path()
    location: str | Inner = ""
    renamed: str = field(default="", metadata=key("old_name"))
    extra: dict[str, int] | None = field(default=None, metadata=OPTIONAL)


WRITTEN = {
    "inner": {"size": 3, "share": 1},
    "layers": [0, -1],
    "interval": [0.25, 1],
    "gate": "none",
    "location": {"size": 4, "share": 0.5},
    "old_name": "x",
    "extra": {"a": 1},
}


def test_nested_values_get_the_types_of_their_fields() -> None:
    assert from_json(Outer, WRITTEN | {"folder": "runs/a"}) == Outer(
        inner=Inner(3, 1),
        layers=(0, -1),
        interval=(0.25, 1),
        gate="none",
        folder=Path("runs/a"),
        location=Inner(4),
        renamed="x",
        extra={"a": 1},
    )


def test_what_is_written_is_read_back() -> None:
    value = from_json(Outer, WRITTEN | {"folder": "runs/a"})
    content = json.loads(json.dumps(to_json(value)))
    assert content == WRITTEN | {"folder": "runs/a"}
    assert from_json(Outer, content) == value
    assert "extra" not in to_json(Outer(Inner(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": {}}, "^inner: without size$"),
        ({"inner": {"size": "3"}}, "^inner.size: '3' is not int$"),
        ({"inner": [3]}, r"^inner: \[3\] is not Inner$"),
        ({"layers": [0, "1"]}, "^layers: '1' is not int$"),
        ({"interval": [0.5]}, r"^interval: \[0.5\] is not tuple\[float, float\]$"),
        ({"gate": 3}, "^gate: 3 is not one of channel, none$"),
        ({"extra": {"a": None}}, "^extra.a: None is not int$"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(Outer, WRITTEN | change)


def test_unknown_keys_are_ignored_or_refused_by_name() -> None:
    content = WRITTEN | {"inner": {"size": 1, "weight": 2, "depth": 3}}
    assert from_json(Outer, content).inner == Inner(1)
    with pytest.raises(UnknownContentError, match=r"^inner: unknown to .*: depth, weight$"):
        from_json(Outer, content, ignore_unknown=False)


def test_an_unknown_choice_is_content_of_a_newer_version() -> None:
    with pytest.raises(UnknownContentError, match=r"^gate: 'scalar' is not one of channel, none$"):
        from_json(Outer, WRITTEN | {"gate": "scalar"})

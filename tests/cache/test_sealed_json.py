"""Sealed JSON is read back, and any changed byte is detected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.sealed_json import seal, unseal

Content = dict[str, Any]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=6), children, max_size=3)
    ),
    max_leaves=12,
)


@given(
    content=st.dictionaries(st.text(), JSON, min_size=1, max_size=4).filter(
        lambda c: "sha256" not in c
    ),
    indented=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_sealed_content_is_unsealed(content: Content, indented: bool) -> None:
    assert unseal(seal(content, indented=indented)) == content


@given(
    content=st.dictionaries(st.text(), JSON, min_size=1, max_size=3),
    indented=st.booleans(),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_any_change_of_any_byte_breaks_the_seal(
    content: Content, indented: bool, data: st.DataObject
) -> None:
    text = bytearray(seal(content, indented=indented))
    text[data.draw(st.integers(0, len(text) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="checksum"):
        unseal(bytes(text))

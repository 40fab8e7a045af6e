"""Conversations written as rows of messages read back as the same turns."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.chat_rows import chat_row
from pipeline.data.conversations import Turn
from pipeline.data.forms import ignored_fields, read_row

TEXT = st.text(min_size=1).filter(str.strip)
CALL = {"type": "function", "function": {"name": "count", "arguments": {"of": "hens"}}}
TURNS = st.one_of(
    st.builds(Turn, st.sampled_from(["system", "user"]), TEXT),
    st.builds(Turn, st.just("assistant"), TEXT, learn=st.booleans()),
    st.builds(
        Turn,
        st.just("assistant"),
        TEXT,
        TEXT.map(lambda text: json.dumps({"reasoning_content": text}, ensure_ascii=False)),
    ),
    st.just(Turn("assistant", "", json.dumps({"tool_calls": [CALL]}))),
    st.just(Turn("tool", "", json.dumps({"tool_call_id": "1", "name": "count"}))),
)
TOOLS = st.just((Turn("tools", json.dumps([{"function": {"name": "count"}}])),))


@given(st.one_of(st.just(()), TOOLS), st.lists(TURNS, min_size=1))
def test_a_row_reads_back_as_the_same_turns(tools: tuple[Turn, ...], turns: list[Turn]) -> None:
    row = json.loads(json.dumps(chat_row((*tools, *turns), id="7")))
    assert read_row(row, "chat") == (*tools, *turns)
    assert set(ignored_fields(row, "chat")) <= {"id", "messages[].name", "messages[].tool_call_id"}

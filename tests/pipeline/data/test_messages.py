"""Messages of chat rows: reasoning, tool calls, weights, unusable fields."""

import json

import pytest

from pipeline.data.conversations import Turn
from pipeline.data.messages import messages_of
from pipeline.errors import RowError

CALL = {"function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}


def read(*messages: dict[str, object]) -> tuple[Turn, ...]:
    return messages_of({"messages": list(messages)}, "messages")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_under_any_of_its_names(name: str) -> None:
    (turn,) = read({"role": "assistant", "content": "6", name: "two each"})
    assert turn.extra == {"reasoning_content": "two each"}
    assert turn.message["reasoning_content"] == turn.message["thinking"] == "two each"
    assert turn.plain_text == "<think>\ntwo each\n</think>\n\n6"


def test_arguments_of_calls_become_objects() -> None:
    (turn,) = read({"role": "assistant", "content": None, "tool_calls": [CALL]})
    assert turn.text == ""
    assert turn.extra["tool_calls"] == [
        {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
    ]
    assert (
        turn.plain_text
        == '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
    )
    assert read({"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])}) == (turn,)
    assert read(
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"name": "weather", "arguments": {"city": "Ulm"}}],
        }
    ) == (turn,)


def test_a_tool_result_is_a_turn() -> None:
    (turn,) = read(
        {"role": "tool", "content": "12 degrees", "tool_call_id": "c1", "name": "weather"}
    )
    assert (turn.role, turn.text) == ("tool", "12 degrees")
    assert turn.message == {
        "role": "tool",
        "content": "12 degrees",
        "tool_call_id": "c1",
        "name": "weather",
    }
    assert read({"from": "observation", "value": "12"})[0].role == "tool"


@pytest.mark.parametrize("field", ["weight", "train", "training", "trainable", "loss"])
@pytest.mark.parametrize(
    ("value", "learned"),
    [(0, False), (False, False), (0.0, False), (1, True), (True, True), (None, True)],
)
def test_a_message_with_weight_zero_is_not_learned(
    field: str, value: object, learned: bool
) -> None:
    assert read({"role": "assistant", "content": "A", field: value})[0].learn is learned


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"role": "assistant", "content": "A", "weight": 0.5}, r"messages\[0\]\.weight' is 0\.5"),
        ({"role": "assistant", "content": "A", "train": "no"}, r"messages\[0\]\.train' is 'no'"),
        (
            {"role": "assistant", "content": "A", "function_call": {"name": "f"}},
            r"function_call' is not supported; use 'tool",
        ),
        ({"role": "assistant", "content": "A", "reasoning": "x", "thinking": "y"}, "differ"),
        (
            {"role": "assistant", "content": "A", "tool_calls": {"name": "f"}},
            "is not a list of calls",
        ),
        (
            {"role": "assistant", "content": "A", "tool_calls": ["f"]},
            r"tool_calls\[0\]' is not a call",
        ),
        ({"role": "assistant", "content": "A", "tool_calls": "{"}, "is not JSON"),
        (
            {"role": "user", "content": "A", "tool_calls": [CALL]},
            "only allowed in an assistant message",
        ),
        ({"role": "assistant", "content": ""}, "content' is empty"),
        ({"role": "assistant", "content": [{"type": "text"}]}, "content' is of type list"),
        (
            {"role": "user", "content": "A", "value": "B"},
            r"content and messages\[0\]\.value differ",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{**CALL, "extra": "x"}]},
            r"tool_calls\[0\]\.extra' is not supported",
        ),
        ({"role": "user", "content": "A", "weight": "abc"}, r"weight' is 'abc'"),
        ({"content": "A"}, r"messages\[0\]\.role' is missing"),
    ],
)
def test_unusable_fields_are_named(message: dict[str, object], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        read(message)


@pytest.mark.parametrize(
    "arguments", ['{"a": 1, "a": 2}', '{"a": ', "[1]", '{"a": 1e400}', '{"a": %s}' % ("9" * 5000)]
)
def test_arguments_that_are_not_plain_objects_stay_text(arguments: str) -> None:
    (turn,) = read(
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": arguments}]}
    )
    assert turn.extra["tool_calls"][0]["function"]["arguments"] == arguments

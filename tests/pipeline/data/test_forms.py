"""Rows of every form become conversations, or are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.conversations import Conversation, TokenRow, Turn
from pipeline.data.forms import FORMS, detect_form, ignored_fields, read_row
from pipeline.errors import RowError


def test_columns_identify_the_form() -> None:
    assert detect_form(["system", "conversations"]) == "stratos"
    assert detect_form(["messages", "id"]) == "chat"
    assert detect_form(["question", "answer"]) == "gsm8k"
    assert detect_form(["text"]) == "text"
    assert detect_form(["question"]) is None
    assert detect_form(["prompt", "completion"]) == "completion"
    assert detect_form(["instruction", "input", "output", "text"]) == "instruction"
    assert detect_form(["input_ids", "attention_mask", "labels"]) == "tokens"
    assert detect_form(["input_ids", "loss_mask", "messages"]) == "tokens"
    assert detect_form(["input_ids"]) is None


def test_stratos_rows_become_turns() -> None:
    row = {
        "system": "S",
        "conversations": [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}],
    }
    assert read_row(row, "stratos") == (
        Turn("system", "S"),
        Turn("user", "Q"),
        Turn("assistant", "A"),
    )
    row = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
    assert read_row(row, "stratos") == (Turn("user", "Q"), Turn("assistant", "A"))


def test_chat_gsm8k_and_text_rows_become_turns() -> None:
    messages = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
    ]
    assert read_row({"messages": messages}, "chat") == (
        Turn("system", "S"),
        Turn("user", "Q"),
        Turn("assistant", "A"),
    )
    assert read_row({"question": "Q", "answer": "A"}, "gsm8k") == (
        Turn("user", "Q"),
        Turn("assistant", "A"),
    )
    assert read_row({"text": "T"}, "text") == (Turn("text", "T"),)


@pytest.mark.parametrize(
    ("row", "form", "problem"),
    [
        ({"question": "Q", "answer": None}, "gsm8k", "'answer' is missing"),
        ({"question": "Q", "answer": 3}, "gsm8k", "'answer' is of type int"),
        ({"question": " ", "answer": "A"}, "gsm8k", "'question' is empty"),
        ({"conversations": "x"}, "stratos", "'conversations' is not a list"),
        ({"conversations": []}, "stratos", "'conversations' is not a list"),
        ({"conversations": ["x"]}, "stratos", r"conversations\[0\]"),
        ({"conversations": [{"from": "user"}]}, "stratos", r"conversations\[0\]\.value"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "chat", "'judge'"),
    ],
)
def test_errors_of_malformed_rows_name_the_field(
    row: dict[str, object], form: str, problem: str
) -> None:
    with pytest.raises(RowError, match=problem):
        read_row(row, form)  # type: ignore[arg-type]


def test_the_prompt_precedes_the_last_answer() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    assert Conversation("0", turns).prompt_turns == turns[:3]
    assert Conversation("0", turns).reference == "d"
    assert Conversation("0", (Turn("text", "x"),)).prompt_turns == ()


def test_a_completion_row_has_two_texts_or_two_lists_of_messages() -> None:
    turns = (Turn("user", "Q"), Turn("assistant", "A"))
    assert read_row({"prompt": "Q", "completion": "A"}, "completion") == turns
    row = {
        "prompt": [{"role": "user", "content": "Q"}],
        "completion": [{"role": "assistant", "content": "A"}],
    }
    assert read_row(row, "completion") == turns
    earlier = {"role": "assistant", "content": "Hello."}
    read = read_row({**row, "prompt": [earlier, *row["prompt"]]}, "completion")
    assert isinstance(read, tuple)
    assert [turn.learn for turn in read] == [False, True, True]


def test_an_instruction_is_followed_by_its_input() -> None:
    row = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    assert read_row(row, "instruction") == (Turn("user", "Add.\n\n1 and 2"), Turn("assistant", "3"))
    assert read_row({**row, "input": ""}, "instruction") == (
        Turn("user", "Add."),
        Turn("assistant", "3"),
    )


def test_tool_definitions_become_a_turn() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    read = read_row({"messages": messages, "tools": tools}, "chat")
    assert isinstance(read, tuple)
    assert read[0].role == "tools"
    assert read == read_row({"messages": messages, "tools": str(tools).replace("'", '"')}, "chat")
    with pytest.raises(RowError, match="'tools' is not a list"):
        read_row({"messages": messages, "tools": {"name": "weather"}}, "chat")
    for bad in ({"type": "web", "function": None}, {"function": "x"}, {"function": {"name": 3}}):
        with pytest.raises(RowError, match="has no function with a 'name'"):
            read_row({"messages": messages, "tools": [bad]}, "chat")


@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 1), st.booleans(), st.booleans()), min_size=1, max_size=20
    )
)
def test_token_rows_keep_everything_but_padding(
    tokens: list[tuple[int, bool, bool]],
) -> None:
    ids, learned, kept = [list(column) for column in zip(*tokens, strict=True)]
    labels = [token if learn else -100 for token, learn in zip(ids, learned, strict=True)]
    for row in ({"loss_mask": learned}, {"labels": labels}):
        read = read_row(
            {"input_ids": ids, "attention_mask": [int(keep) for keep in kept], **row}, "tokens"
        )
        assert isinstance(read, TokenRow)
        assert read.input_ids.dtype == np.int32
        assert read.input_ids.tolist() == [
            token for token, keep in zip(ids, kept, strict=True) if keep
        ]
        assert read.loss_mask.tolist() == [
            learn for learn, keep in zip(learned, kept, strict=True) if keep
        ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"input_ids": [1, 2], "labels": [2, -100]},
            "'labels' is 2 at index 0, where input_ids is 1",
        ),
        ({"input_ids": [1, 2], "labels": [1]}, "'labels' has 1 values, but input_ids has 2"),
        ({"input_ids": [1, 2], "loss_mask": [0, 2]}, "'loss_mask' contains 2"),
        ({"input_ids": [1, "x"], "loss_mask": [0, 1]}, "'input_ids' is 'x' at index 1"),
        ({"input_ids": [1, 2**31], "loss_mask": [0, 1]}, "'2147483648' at index 1"),
        ({"input_ids": [1, 2], "loss_mask": None}, "'labels' is missing"),
        ({"input_ids": [-100, 2], "loss_mask": [0, 1]}, "'input_ids' is '-100' at index 0"),
        (
            {"input_ids": [1, 2], "loss_mask": [0, 1], "attention_mask": [1]},
            "'attention_mask' has 1 values",
        ),
    ],
)
def test_inconsistent_token_rows_are_refused(row: dict[str, object], problem: str) -> None:
    with pytest.raises(RowError, match=problem):
        read_row(row, "tokens")


def test_ignored_fields_are_listed() -> None:
    row = {
        "messages": [{"role": "user", "content": "Q", "mood": "glad", "weight": 1}],
        "id": 3,
        "note": "",
        "tools": [],
    }
    assert set(ignored_fields(row, "chat")) == {"id", "messages[].mood"}
    assert set(ignored_fields({"question": "Q", "answer": "A", "meta": {}}, "gsm8k")) == set()


def test_every_form_can_be_detected() -> None:
    for name, form in FORMS.items():
        columns = [needed if isinstance(needed, str) else needed[0] for needed in form.columns]
        assert detect_form(columns) == name

import pytest

from pipeline.data.conversations import Conversation, Turn
from pipeline.data.forms import MalformedRowError, detect_form, turns_of


def test_each_form_is_told_by_its_columns() -> None:
    assert detect_form(["system", "conversations"]) == "stratos"
    assert detect_form(["messages", "id"]) == "chat"
    assert detect_form(["question", "answer"]) == "gsm8k"
    assert detect_form(["text"]) == "text"
    assert detect_form(["question"]) is None


def test_stratos_rows_become_turns() -> None:
    row = {"system": "S", "conversations": [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}]}
    assert turns_of(row, "stratos") == (Turn("system", "S"), Turn("user", "Q"), Turn("assistant", "A"))
    row = {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}
    assert turns_of(row, "stratos") == (Turn("user", "Q"), Turn("assistant", "A"))


def test_chat_gsm8k_and_text_rows_become_turns() -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert turns_of({"messages": messages}, "chat") == (Turn("system", "S"), Turn("user", "Q"), Turn("assistant", "A"))
    assert turns_of({"question": "Q", "answer": "A"}, "gsm8k") == (Turn("user", "Q"), Turn("assistant", "A"))
    assert turns_of({"text": "T"}, "text") == (Turn("text", "T"),)


@pytest.mark.parametrize(
    ("row", "form", "named"),
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
def test_malformed_rows_name_the_field(row: dict[str, object], form: str, named: str) -> None:
    with pytest.raises(MalformedRowError, match=named):
        turns_of(row, form)  # type: ignore[arg-type]


def test_the_prompt_is_what_comes_before_the_last_answer() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    assert Conversation("0", turns).prompt_turns == turns[:3]
    assert Conversation("0", turns).reference == "d"
    assert Conversation("0", (Turn("text", "x"),)).prompt_turns == ()

"""Rendering of rows by chat templates, and templates that are refused."""

import copy
import json

import pytest
from transformers import PreTrainedTokenizerBase

from pipeline.data.conversations import Turn
from pipeline.data.template_date import TEMPLATE_DATE, fix_template_date, template_date_of
from pipeline.data.templates import render, render_prompt
from pipeline.errors import RowError

TURN = "<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n"
ASK = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
QWEN = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor"
    " %}<|im_end|>\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{% if"
    " m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content"
    " }}{% for c in m.tool_calls or [] %}\n<tool_call>\n{{ c.function | tojson }}\n</tool_call>{%"
    " endfor %}<|im_end|>\n{% endfor %}" + ASK
)
CALL = {
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": 'Ulm "Süd"', "days": 3}},
}
TOOLS = Turn(
    "tools",
    json.dumps(
        [{"type": "function", "function": {"name": "weather", "description": "Of a city."}}]
    ),
)
QUESTION = Turn("user", "How warm is it?")


def chatml(content: str) -> str:
    return "{% for m in messages %}" + TURN.replace("CONTENT", content) + "{% endfor %}" + ASK


@pytest.fixture
def chat(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return copy.deepcopy(tokenizer)


def rendered(
    turns: list[Turn], chat: PreTrainedTokenizerBase, template: str
) -> list[tuple[str, bool]]:
    chat.chat_template = template
    return [(part.text, part.learn) for part in render(turns, "chat", chat)]


def test_reasoning_calls_and_tools_are_rendered_and_learned(chat: PreTrainedTokenizerBase) -> None:
    answer = Turn(
        "assistant",
        "I look.",
        json.dumps({"reasoning_content": "Ask the tool.", "tool_calls": [CALL]}),
    )
    turns = [TOOLS, QUESTION, answer, Turn("tool", "12 degrees"), Turn("assistant", "12 degrees.")]
    parts = rendered(turns, chat, QWEN)
    assert [learn for _, learn in parts] == [False, True, False, True]
    assert '"name": "weather"' in parts[0][0]
    assert "Ask the tool." in parts[1][0]
    assert '"city": "Ulm' in parts[1][0]
    assert parts[1][0].endswith("</tool_call><|im_end|>")
    assert "12 degrees" in parts[2][0]
    prompt = render_prompt(turns[:-1], "chat", chat)
    assert [(part.text, part.learn) for part in prompt] == parts[:3]


@pytest.mark.parametrize(
    ("template", "turns", "problem"),
    [
        (
            chatml("m.content.split('</think>')[-1]"),
            [QUESTION, Turn("assistant", "<think>so</think> 12")],
            "the content of turn 1",
        ),
        (
            chatml("m.content"),
            [QUESTION, Turn("assistant", "12", '{"reasoning_content": "so"}')],
            "the reasoning_content of turn 1",
        ),
        (
            chatml("m.content"),
            [QUESTION, Turn("assistant", "12", json.dumps({"tool_calls": [CALL]}))],
            "a tool_call's name of turn 1",
        ),
        (
            chatml("m.content"),
            [TOOLS, QUESTION, Turn("assistant", "12")],
            r"the function of turn 0 \(tools\)",
        ),
        (
            "weather\n" + chatml("m.content"),
            [TOOLS, QUESTION, Turn("assistant", "12")],
            r"a function's description of turn 0",
        ),
        (
            "{% for m in messages if m.role != 'system' %}"
            + TURN.replace("CONTENT", "m.content")
            + "{% endfor %}"
            + ASK,
            [Turn("system", "Be brief."), QUESTION, Turn("assistant", "12")],
            r"the content of turn 0 \(system\)",
        ),
        (
            chatml("m.content | lower"),
            [QUESTION, Turn("assistant", "12")],
            r"the content of turn 0 \(user\)",
        ),
    ],
)
def test_templates_that_drop_or_rewrite_content_are_refused(
    template: str, turns: list[Turn], problem: str, chat: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(RowError, match=f"drops or rewrites {problem}"):
        rendered(turns, chat, template)


def test_a_template_may_trim_and_escape(chat: PreTrainedTokenizerBase) -> None:
    turns = [Turn("user", " two  words\n"), Turn("assistant", "yes ")]
    assert rendered(turns, chat, chatml("m.content | trim"))[1] == ("yes<|im_end|>", True)
    assert rendered([QUESTION, Turn("assistant", "a\nb")], chat, chatml("m.content | tojson"))[
        1
    ] == (
        '"a\\nb"<|im_end|>',
        True,
    )


def test_a_conversation_may_begin_with_the_assistant(chat: PreTrainedTokenizerBase) -> None:
    strict = "{% if not messages %}{{ raise_exception('nothing') }}{% endif %}" + chatml(
        "m.content"
    )
    for template in (strict, chatml("m.content")):
        parts = rendered(
            [Turn("assistant", "Hello."), QUESTION, Turn("assistant", "12")], chat, template
        )
        assert [(text, learn) for text, learn in parts if learn] == [
            ("Hello.<|im_end|>", True),
            ("12<|im_end|>", True),
        ]
    paper = render([Turn("assistant", "Hello."), QUESTION, Turn("assistant", "12")], "paper", chat)
    assert "".join(part.text for part in paper).startswith(
        "Assistant:\nHello.<|im_end|>\n\nUser:\n"
    )


@pytest.mark.parametrize("answer", ["hi", ""])
def test_rows_whose_answer_has_no_known_start_are_refused(
    answer: str, chat: PreTrainedTokenizerBase
) -> None:
    strict = (
        "{% if messages[-1].role != 'assistant' %}{{ raise_exception('no user') }}{% endif %}"
        + chatml("m.content")
    )
    calls = "" if answer else json.dumps({"tool_calls": [CALL]})
    with pytest.raises(RowError, match="renders no prompt without a user message"):
        rendered([Turn("system", "Say hi, sir."), Turn("assistant", answer, calls)], chat, strict)


def test_the_date_of_a_template_is_fixed(chat: PreTrainedTokenizerBase) -> None:
    dated = "Today: {{ strftime_now('%d %b %Y') }}\n" + chatml("m.content")
    parts = rendered([QUESTION, Turn("assistant", "12")], chat, dated)
    assert parts[0][0].startswith("Today: 26 Jul 2024\n")
    assert render_prompt([QUESTION], "chat", chat)[0].text == parts[0][0]
    assert template_date_of("chat", chat) == "2024-07-26"
    assert template_date_of("paper", chat) is None
    chat.chat_template = chatml("m.content")
    assert template_date_of("chat", chat) is None


@pytest.mark.parametrize(
    "form",
    ["%d %b %Y", "%Y-%m-%d", "%-d/%-m/%y", "%A, %B %d", "%H:%M:%S", "%F", "%j", "no date", "100%"],
)
def test_dates_are_formatted_as_by_strftime(form: str, chat: PreTrainedTokenizerBase) -> None:
    template = "\n{% macro today() %}{{ DATE }}{% endmacro %}\n[{{ today() }}]"
    expected = template.replace("DATE", repr(TEMPLATE_DATE.strftime(form)))
    dated = fix_template_date(template.replace("DATE", f"strftime_now({form!r})"))
    one, two = (
        chat.apply_chat_template(
            [QUESTION.message], chat_template=rendered_template, tokenize=False
        )
        for rendered_template in (expected, dated)
    )
    assert one == two


def test_the_paper_template_marks_reasoning_and_calls(
    chat: PreTrainedTokenizerBase,
) -> None:
    answer = Turn("assistant", "", json.dumps({"reasoning_content": "so", "tool_calls": [CALL]}))
    parts = render(
        [TOOLS, QUESTION, answer, Turn("tool", "12"), Turn("assistant", "12.")], "paper", chat
    )
    text = "".join(part.text for part in parts)
    assert text.startswith("Tools:\n[")
    assert "Assistant:\n<think>\nso\n</think>\n\n<tool_call>\n{" in text
    assert "\n\nTool:\n12\n\nAssistant:\n12.<|im_end|>" in text

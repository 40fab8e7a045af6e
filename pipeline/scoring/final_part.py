"""The final answer in a text that begins with reasoning."""

from __future__ import annotations

import re

_OPENS = re.compile(
    r"<(?:think|thinking|thought|reasoning)>|<\|begin_of_thought\|>|\[THINK\]|◁think▷"
)
_CLOSES = re.compile(
    r"</(?:think|thinking|thought|reasoning)>|<\|end_of_thought\|>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>"
)
_SOLUTION = re.compile(r"<\|(?:begin|end)_of_solution\|>")
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)


def final_part(text: str) -> str:
    """Return the text after the reasoning; empty if the reasoning never ends.

    Recognises `<think>` and similar tags, Stratos' sections and `<answer>`. The end tag is enough,
    as a chat template may have written the opening one.
    """
    begins = text.rfind("<|begin_of_solution|>")
    ends = [match.end() for match in _CLOSES.finditer(text)]
    if begins >= 0:
        text = text[begins:]
    elif ends:
        text = text[ends[-1] :]
    elif (opened := _OPENS.search(text)) is not None:
        text = text[: opened.start()]
    text = _SOLUTION.sub("", text)
    answers = [content for content in _ANSWER.findall(text) if content.strip()]
    return (answers[-1] if answers else text).strip()

"""What of a text is the answer, where a thought comes first."""

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
    """What follows the thought; all of a text that has none, nothing of one whose thought was never
    ended.

    Known are `<think>` and its like, Stratos' sections and `<answer>`. A thought that was opened
    outside of the text, by a chat template, is known by its end."""
    begins = text.rfind("<|begin_of_solution|>")
    ends = [match.end() for match in _CLOSES.finditer(text)]
    if begins >= 0:
        text = text[begins:]
    elif ends:
        text = text[ends[-1] :]
    elif (opened := _OPENS.search(text)) is not None:
        text = text[: opened.start()]
    text = _SOLUTION.sub("", text)
    named = [inside for inside in _ANSWER.findall(text) if inside.strip()]
    return (named[-1] if named else text).strip()

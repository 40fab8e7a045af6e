"""Where in a text its final result stands."""

from __future__ import annotations

import re

_AFTER_THOUGHT = ("</think>", "<|end_of_thought|>", "<|begin_of_solution|>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
NUMBER = r"(?:(?<![\w)\]}.,])[-\u2212])?[$€£¥]?\s?(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d+(?!\w))?(?:/\d+)?%?"
_NUMBER = re.compile(NUMBER)
_MARKED = re.compile(r"####[ \t]*([^\n]*)")
_STATED = re.compile(rf"\banswer\s*(?:is|:|=)\s*(?:\$([^$\n]+)\$|(?:about\s+|approximately\s+)?({NUMBER}))", re.IGNORECASE)


def final_answer(text: str) -> str | None:
    r"""The final result of an answer, its thought aside.

    The last `\boxed{…}` with content; else what follows the last `####` that a number follows, or that begins the last
    line; else what "the answer is" states; else the last number. None where there is none of these.
    """
    text = _after_thought(text)
    for found in (last_boxed(text), _last_marked(text), _last_stated(text), _last_number(text)):
        if found:
            return found
    return None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` that has any."""
    for box in reversed(list(_BOX.finditer(text))):
        rest = text[box.end() :]
        content = _braced(rest) if rest.startswith("{") else (re.match(r"[^\s$.,;]+", rest) or [""])[0]
        if content and content.strip():
            return content.strip()
    return None


def has_marked_answer(text: str) -> bool:
    r"""Whether a text has a final result in a box or after `####`."""
    text = _after_thought(text)
    return bool(last_boxed(text) or _last_marked(text))


def _after_thought(text: str) -> str:
    for mark in _AFTER_THOUGHT:
        if (after := text.rpartition(mark)[2].strip()) and mark in text:
            text = after
    return text


def _braced(text: str) -> str | None:
    depth = 0
    for place, letter in enumerate(text):
        if letter in "{}" and (not place or text[place - 1] != "\\"):
            depth += 1 if letter == "{" else -1
            if not depth:
                return text[1:place]
    return None


def _last_marked(text: str) -> str | None:
    for found in reversed(list(_MARKED.finditer(text))):
        content = found[1].strip()
        is_last = not text[found.end() :].strip()
        if content and (is_last or re.match(r"[-\u2212]?\s*\\?[$€£¥]?\s*[-\u2212]?[\d.]", content)):
            return content
    return None


def _last_stated(text: str) -> str | None:
    found = list(_STATED.finditer(text))
    return (found[-1][1] or found[-1][2]).strip() if found else None


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1].strip() if found else None

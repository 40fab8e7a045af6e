"""Reading an answer: its final result, and whether it has the form that was taught."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_FORM = ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def final_answer(text: str) -> str | None:
    r"""The final result: the last `\boxed{…}`, else what follows the last `####`, else the last number."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    if "####" in text:
        after = text.rpartition("####")[2].strip().splitlines()
        return after[0].strip() if after else None
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def same_answer(found: str | None, reference: str | None) -> bool:
    """Whether two final results are the same number, or the same words."""
    if found is None or reference is None:
        return False
    return _normal(found) == _normal(reference)


def has_form(text: str) -> bool:
    """Whether a text has a thought and a solution section, each opened and closed once and in this order."""
    places = [text.find(marker) for marker in _FORM]
    return all(text.count(marker) == 1 for marker in _FORM) and places == sorted(places)


def repetition(text: str) -> float:
    """The share of four words in a row that have come in the same text before (Welleck et al., arXiv 1908.04319); 0 to 1."""
    words = text.split()
    runs = [tuple(words[start : start + 4]) for start in range(len(words) - 3)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return None


def _normal(answer: str) -> Decimal | str:
    plain = answer.strip().rstrip(".").replace(",", "").replace("$", "").replace("\\", "").strip()
    try:
        number = Decimal(plain)
    except InvalidOperation:
        return " ".join(plain.lower().split())
    return number if number.is_finite() else plain.lower()

"""Equality of final results: numbers, text, options, tuples, sets, intervals and formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.scoring.mathematics.notation import plain
from pipeline.scoring.mathematics.quantities import read_quantity, same_quantity
from pipeline.scoring.mathematics.results import (
    in_brackets,
    is_formula,
    last_side,
    named_unknown,
    option,
    parts,
    without_lead_in,
)
from pipeline.scoring.mathematics.symbolic import same_formula

_MAX_DEPTH = 8
_MAX_MEMBERS = 50
"""Largest set whose members are matched in any order."""
_UNORDERED = {"", "\\{", "\\cup"}


def same_answer(answer: str | None, reference: str | None) -> bool:
    """Return whether two final results are equal.

    Raises:
        RunError: math-verify cannot be started.
    """
    if answer is None or reference is None:
        return False
    one, other = plain(answer), plain(reference)
    if not one or not other:
        return False
    return _same(one, other, _MAX_DEPTH)


def _same(one: str, other: str, depth: int) -> bool:
    """Return whether two results in plain notation are equal."""
    if _letters(one) == _letters(other):
        return True
    if depth == 0:
        return False
    one, other = (last_side(without_lead_in(text)) for text in (one, other))
    names = named_unknown(one), named_unknown(other)
    if any(names):
        if all(names) and names[0] and names[1] and names[0][0] != names[1][0]:
            return False
        return _same(
            names[0][1] if names[0] else one, names[1][1] if names[1] else other, depth - 1
        )
    if _letters(one) == _letters(other):
        return True
    quantities = read_quantity(in_brackets(one)), read_quantity(in_brackets(other))
    if quantities[0] and quantities[1]:
        return same_quantity(quantities[0], quantities[1])
    letters = option(one), option(other)
    if letters[0] and letters[1]:
        return letters[0][0] == letters[1][0]
    for letter, text in zip(letters, (other, one), strict=True):
        if letter and letter[1]:
            return _same(letter[1], text, depth - 1)
    members = parts(one), parts(other)
    if members[0] and members[1]:
        return _same_parts(members[0], members[1], depth - 1)
    for member, text in zip(members, (other, one), strict=True):
        if member and len(member[1]) == 1 and not (member[0] + member[2]).strip("\\{}[]"):
            return _same(member[1][0], text, depth - 1)
    return (
        is_formula(one)
        and is_formula(other)
        and _may_be_equal(one, other)
        and same_formula(one, other)
    )


def _same_parts(
    one: tuple[str, list[str], str], other: tuple[str, list[str], str], depth: int
) -> bool:
    """Return whether two lists are equal; sets, unions and lists without brackets are unordered."""
    brackets = (one[0], one[2]), (other[0], other[2])
    if len(one[1]) != len(other[1]) or (
        all(any(pair) for pair in brackets) and brackets[0] != brackets[1]
    ):
        return False

    def same(left: str, right: str) -> bool:
        return _same(left, right, depth)

    if {one[0], other[0]} <= _UNORDERED:
        return _matched(one[1], other[1], same)
    return all(same(left, right) for left, right in zip(one[1], other[1], strict=True))


def _matched(ones: Sequence[str], others: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Return whether the members match one to one, in any order."""
    if len(ones) > _MAX_MEMBERS:
        return list(ones) == list(others)
    unmatched = list(others)
    for one in ones:
        match = next((index for index, other in enumerate(unmatched) if same(one, other)), None)
        if match is None:
            return False
        del unmatched[match]
    return True


def _may_be_equal(one: str, other: str) -> bool:
    """Rule out an equation compared with one of its sides; intervals may equal inequalities."""
    return ("=" in one) == ("=" in other) or bool(
        re.search(r"[<>]|\\[lg]e(?![a-zA-Z])", one + other)
    )


def _letters(text: str) -> str:
    """Return a result without blanks and case, its times of day in one notation."""
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text.casefold())
    text = re.sub(r"(?<![\d:])0(\d:\d\d)", r"\1", text)
    text = re.sub(r"[\^_]\{(\w)\}", lambda match: match[0][0] + match[1], text)
    if not re.search(r"[\d\\=<>^]", text):
        return " ".join(text.split())
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)

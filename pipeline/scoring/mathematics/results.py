"""Kinds of results: text, an option's letter, a list, a named unknown, a formula."""

from __future__ import annotations

import re

from pipeline.scoring.mathematics.quantities import read_quantity

_CONNECTED = re.compile(r"\s*(?:,\s*)?\b(?:and|or)\b\s*|\s*[,;]\s*(?:(?:and|or)\b\s*)?")
_OPEN, _CLOSE = "([{", ")]}"
_FUNCTIONS = re.compile(
    r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|sqrt|max|min|gcd|lcm|mod|det|lim|deg)\b|\\[a-zA-Z]+",
    re.IGNORECASE,
)
_GREEK = (
    r"\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|iota|kappa|"
    r"lambda|mu|nu|xi|rho|sigma|tau|phi|varphi|chi|psi|omega)"
)
_NAMED = re.compile(
    rf"((?:[A-Za-z]|{_GREEK})(?:_\{{?\w+\}}?|')?(?:\([a-z](?:,\s*[a-z])*\))?)\s*(?:=|\\in(?![a-zA-Z]))\s*(.+)"
)
_WORDY = re.compile(r"(?:[^\W\d_]{2,}|[aA])(?:\s+[^\W\d_]+)*\s*[=:]\s*(?=[-+.$\d\\({\[])")
_ABOUT = re.compile(r"^(?:\\approx|≈|\\sim|about|approximately|around|roughly|=)\s*", re.IGNORECASE)
_UNCOUNTED = re.compile(r"\d+\s*[-–]\s*\d+(?:\s*[-–]\s*\d+)*|\d+[/.]\d+[/.]\d+|\d+(?::\d+)+")
_LETTER = re.compile(
    r"(?:option\s+|choice\s+)?(?:\(([A-Za-z])\)|([A-Za-z])\)|\[([A-Za-z])\]|([A-Z]))[.:]?(?:\s+(\S.*))?",
    re.IGNORECASE,
)
_LITTLE_WORD = re.compile(
    r"(?<!\S)(?:am|an|as|at|be|by|do|he|if|in|is|it|me|my|no|of|on|or|so|to|up|us|we)(?!\S)",
    re.IGNORECASE,
)
_RELATION = re.compile(r"(?<![<>!=\\])=(?!=)|[<>]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")


def without_lead_in(text: str) -> str:
    """Return a result without “about”, and without a label: `Total = 5` becomes 5."""
    plain = _ABOUT.sub("", text)
    label = _WORDY.match(plain)
    return plain[label.end() :] if label else plain


def named_unknown(text: str) -> tuple[str, str] | None:
    """Return name and value of a solved unknown such as `x = 5`, or None."""
    match = _NAMED.fullmatch(text)
    if match is None or _RELATION.search(match[2]) or not match[2].strip():
        return None
    return re.sub(r"[\s{}]", "", match[1]), match[2].strip()


def last_side(text: str) -> str:
    """Return the result of a calculation: `10 - 4 = 6` becomes 6; equations stay as they are."""
    before, sign, after = text.rpartition("=")
    if not sign or not after.strip() or re.search(r"[<>]|\\[lgn]e(?![a-zA-Z])", before):
        return text
    terms = re.sub(
        r"\\(?:times|cdot|div|frac|sqrt|pi|approx)(?![a-zA-Z])", "", before.replace(r"\pi", "")
    )
    return after.strip() if re.search(r"\d", terms) and not re.search(r"[A-Za-z]", terms) else text


def option(text: str) -> tuple[str, str] | None:
    """Return letter and text of an option such as `C`, `(C)`, `option C` or `(C) 12`, or None."""
    match = _LETTER.fullmatch(text)
    if match is None or (match[5] and not (match[1] or match[2])):
        return None
    return next(group for group in match.groups()[:4] if group).upper(), (match[5] or "").strip()


def parts(text: str) -> tuple[str, list[str], str] | None:
    """Return brackets and members of a tuple, interval, set or list (without brackets), or None."""
    if text.count(r"\pm") == 1:
        return (
            "",
            [
                text.replace(r"\pm", sign).replace("+ ", "+").replace("- ", "-").lstrip("+")
                for sign in "+-"
            ],
            "",
        )
    union = _split(text, re.compile(r"\\cup(?![a-zA-Z])"))
    if len(union) > 1:
        return "\\cup", union, ""
    inside, opens, closes = text, "", ""
    bracketed = re.fullmatch(r"(\\\{|\\langle\s|[(\[])(.*)(\\\}|\\rangle|[)\]])", text)
    if bracketed and _is_balanced(bracketed[2]):
        opens, inside, closes = bracketed.groups()
    if not inside.strip():
        return opens, [], closes
    members = _split(inside, _CONNECTED)
    if len(members) == 1 and opens != r"\{":
        return None
    return (opens, members, closes) if all(members) else None


def in_brackets(text: str) -> str:
    """Return a text without parentheses that enclose all of it."""
    inside = text[1:-1].strip()
    return (
        inside if text[:1] == "(" and text[-1:] == ")" and inside and _is_balanced(inside) else text
    )


def is_formula(text: str) -> bool:
    """Return whether a text is mathematics, not words, a date, a time, a ratio or a range."""
    if _UNCOUNTED.fullmatch(text):
        return False
    if (
        re.search(r"[^\W\d_]{3}", _FUNCTIONS.sub(" ", text))
        or _LITTLE_WORD.search(text)
        or r"\boxed" in text
    ):
        return False
    return re.search(r"[\d\\^*/+<>=|]|\w-\w|\w\s+-\s+\w", text) is not None


def is_result(text: str) -> bool:
    """Return whether a whole text is a number, a list of results or a formula."""
    text = without_lead_in(text)
    quantity = read_quantity(text)
    if quantity is not None:
        return len(text.split()) <= 8
    if _UNCOUNTED.fullmatch(text):
        return True
    split = parts(text)
    if split is not None and split[1] and text.count("(") < 20:
        return all(member != text and is_result(member) for member in split[1])
    named = named_unknown(text)
    return is_result(named[1]) if named else is_formula(text)


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split a text at separators outside brackets."""
    members, begin, depth, position = [], 0, 0, 0
    while position < len(text):
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            members.append(text[begin:position].strip())
            begin = position = match.end()
            continue
        character = text[position]
        if character == "\\" and text[position + 1 : position + 2] not in ("{", "}"):
            position += 1
        depth += (character in _OPEN) - (character in _CLOSE)
        position += 1
    return [*members, text[begin:].strip()]


def _is_balanced(text: str) -> bool:
    """Return whether brackets are balanced; half-open intervals may mix their kinds."""
    depth = 0
    for character in text:
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth < 0:
            return False
    return depth == 0

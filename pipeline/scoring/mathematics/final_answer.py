r"""Extraction of a text's final result: `\boxed{…}`, `####`, “the answer is”, or a last number."""

from __future__ import annotations

import re

from pipeline.scoring.final_part import final_part
from pipeline.scoring.mathematics.notation import closing, plain
from pipeline.scoring.mathematics.quantities import DECIMAL, MONEY, read_quantity
from pipeline.scoring.mathematics.results import is_result

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_PLACEHOLDER = re.compile(r"(?:\\?[.…]|\\[lc]?dots|[\s_?])*", re.IGNORECASE)
_BETWEEN = re.compile(
    r"(?:\s|[,;&$]|\\[()\[\],;]|\\q?quad|\\text\{\s*(?:and|or)\s*\}|\b(?:and|or)\b|\w(?:_\{?\w+\}?)?\s*=|\\\\)*",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?<!#)####(?!#)")
_PHRASE = re.compile(
    r"\banswer\b(?:\s*\**\s*[:=]|[^\n.:=]{0,60}?\b(?:is|are|equals)\b(?!\s+not\b)\s*:?)[\s*]*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\b[A-Z])[.!?;](?=\s+[A-Z\\$(]|\s*$)")
_MATH = re.compile(
    r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|\$([^$\n]*(?:\\|[=^])[^$\n]*)\$", re.DOTALL
)
_LETTER = re.compile(
    r"(?:\(([A-Z])\)|\*{0,2}([A-Z])\*{0,2}(?=[.,;:)]|\s*$|\s+(?:because|since|as)\b))"
)
_LABEL = re.compile(r"(?:the\s+)?(?:final\s+)?answer\s*(?:is\b\s*:?|[:=])\s*", re.IGNORECASE)
_SIGNED = r"(?:(?<![\w)\]}%.,\-–−])[-−–+](?=[\d.$€£¥₹]))?"
_TOKEN = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(?!\d)|(?<![\d/.])\d{1,2}([/.])\d{1,2}\1\d{2,4}(?![\d/])|\d+(?::\d+)+(?:\s?[ap]\.?m\b\.?)?"
    rf"|{_SIGNED}(?:{MONEY}\s?)?{_SIGNED}(?<![A-Za-z\d])(?:\d+\s+\d+\s?/\s?\d+|{DECIMAL}\s?/\s?\d+(?![\d/])|{DECIMAL}"
    r"(?:[eE][+-]?\d+(?!\w)|\s*(?:[×*x]|\\times|\\cdot)\s*10\s*(?:\^\{?-?\d+\}?|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+))?)(?:\s?\\?%|\s+per\s?cent\b)?"
)


def final_answer(text: str) -> str | None:
    r"""Return the final result of a text as it is written there, or None.

    Reasoning before the answer is ignored. The last nonempty `\boxed{…}` or `####` takes precedence
    (a Markdown heading of four `#` does not count), then a stated answer, then the whole text if it
    is a result, then its last number, date or time.
    """
    text = final_part(text)
    marked = [result for result in (_boxed(text), _hashed(text)) if result is not None]
    if marked:
        return max(marked)[1]
    stated = _stated(text)
    if stated is not None:
        return stated
    whole = plain(text)
    if whole and len(whole) <= 200 and "\n" not in text.strip() and is_result(whole):
        return text.strip()
    return _last_result(text)


def has_marked_answer(text: str) -> bool:
    r"""Return whether a text marks its result with `\boxed{…}` or `####`."""
    text = final_part(text)
    return _boxed(text) is not None or _hashed(text) is not None


def _boxed(text: str) -> tuple[int, str] | None:
    """Return position and content of the last nonempty box.

    Boxes that are separated only by commas, “and” or names count as one.
    """
    boxes = []
    for match in _BOX.finditer(text):
        if text[match.end() : match.end() + 1] == "{":
            end = closing(text, match.end())
            if end >= 0:
                boxes.append((match.start(), end + 1, text[match.end() + 1 : end].strip()))
        elif bare := re.match(r"[-+]?[\w.,]*\w", text[match.end() :]):
            boxes.append((match.start(), match.end() + bare.end(), bare[0]))
    boxes = [box for box in boxes if not _PLACEHOLDER.fullmatch(box[2].replace("\\text", ""))]
    if not boxes:
        return None
    place, start, last = boxes[-1][0], boxes[-1][0], boxes[-1][2]
    together = [last]
    for begin, end, inside in reversed(boxes[:-1]):
        between = text[end:start]
        if end > start or not between.strip() or not _BETWEEN.fullmatch(between):
            break
        together.insert(0, inside)
        start = begin
    return place, ", ".join(dict.fromkeys(together))


def _hashed(text: str) -> tuple[int, str] | None:
    """Return position and content of the last `####` that is not a heading."""
    for match in reversed(list(_HASHES.finditer(text))):
        after = text[match.end() :].strip()
        line, _, more = after.partition("\n")
        line = _LABEL.sub("", line.strip().strip("*").strip(), count=1).strip()
        if not line:
            continue
        number = re.match(r"[-−–+]?\s*(?:\\?[$€£¥₹]|[-−–]|\d|\.\d)", line)
        is_numbered_heading = re.match(r"\d+[.)]\s+[^\W\d]", line) is not None
        is_result_line = bool(number) and not is_numbered_heading
        if not more.strip() or is_result_line or is_result(plain(line)):
            return match.start(), _number_before_words(line) if number else line
    return None


def _number_before_words(line: str) -> str:
    """Return the number at the start of a line with words after it, else the line."""
    line = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
    if is_result(plain(line)):
        return line
    first = _TOKEN.match(line)
    if first is None or not re.match(
        r"\s*,?\s+[A-Za-z(](?!nd\s+[\d$]|r\s+[\d$])", line[first.end() :]
    ):
        return line
    return line if re.search(r"\b(?:19|20)\d\d\b", line[first.end() :]) else first[0].strip()


def _stated(text: str) -> str | None:
    """Return the result after the last “answer is” or “answer:”."""
    for match in reversed(list(_PHRASE.finditer(text))):
        line = text[match.end() :].strip().partition("\n")[0]
        line = _SENTENCE_END.split(line, maxsplit=1)[0].strip()
        if not plain(line):
            continue
        if letter := _LETTER.match(line):
            return letter[1] or letter[2]
        if is_result(plain(line)):
            return line
        if result := _in_math(line) or _first_result(line):
            return result
        return line if len(line.split()) <= 12 else None
    return None


def _in_math(text: str) -> str | None:
    """Return the last formula of a text, unless a number follows it."""
    formulas = list(_MATH.finditer(text))
    if not formulas or _TOKEN.search(text, formulas[-1].end()):
        return None
    inside = next(group for group in formulas[-1].groups() if group is not None).strip()
    return (
        inside
        if plain(inside) and (read_quantity(plain(inside)) or is_result(plain(inside)))
        else None
    )


def _first_result(line: str) -> str | None:
    """Return the first number of a line, or the one after its last `=`."""
    after = line.rpartition("=")[2] if re.search(r"\d\s*=\s*[-$\d]", line) else line
    match = _TOKEN.search(after)
    return match[0].strip() if match else None


def _last_result(text: str) -> str | None:
    formula = _in_math(text)
    if formula is not None:
        return formula
    tokens = list(_TOKEN.finditer(text))
    return tokens[-1][0].strip() if tokens else None

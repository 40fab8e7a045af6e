"""Normalisation of notation: layout commands, typographic characters, surrounding punctuation."""

from __future__ import annotations

import re
import unicodedata

CURRENCY = "$€£¥₹₩₽₺₪₫₱฿"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_CHARACTERS = {
    "−": "-", "\u2010": "-", "\u2011": "-", "\u2012": "–", "—": "–",
    "×": r"\times ", "✕": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "\u2044": "/", "\u2215": "/",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "∞": r"\infty ",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "º": "°", "˚": "°",
    "’": "'", "‘": "'", "“": '"', "”": '"',
    "\u200b": "", "\u2060": "", "\ufeff": "", "µ": "μ",
}  # fmt: skip
_SAME = [
    (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|!)(?![a-zA-Z])\s*",
     ""),
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\{\s*([,:.])\s*\}", r"\1"),
    (r"(?<!\\)\\(?:[,;:> ]|quad|qquad|enspace|thinspace|enskip|hspace\*?\{[^{}]*\})|~", " "),
    (r"\\(?:text|textrm|textbf|textit|textsf|textnormal|mbox|hbox|operatorname|mathrm|mathbf|mathit|"
     r"mathsf|rm|bf|it|emph|underline|textup|ensuremath|fbox)\*?\s*\{([^{}]*)\}", r" \1 "),
    (r"\\(?:mathrm|mathbf|rm|bf|it)(?![a-zA-Z])", " "),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{"),
    (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"\{\s*(-?[\w.,]+)\s*\\over\s*([\w.,]+)\s*\}", r"\\frac{\1}{\2}"),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])|\\deg(?![a-zA-Z])", "°"),
    (r"\s*\^\s*", "^"),
    (r"\\leq?(?:slant)?(?![a-zA-Z])", r"\\le"),
    (r"\\geq?(?:slant)?(?![a-zA-Z])", r"\\ge"),
    (r"<=", r"\\le "),
    (r">=", r"\\ge "),
    (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
    (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
    (r"\\l(?:brace|vert)(?![a-zA-Z])", r"\\{"),
    (r"\\r(?:brace|vert)(?![a-zA-Z])", r"\\}"),
    (r"\\(?:euro|EUR)(?![a-zA-Z])", "€"),
    (r"\\pounds(?![a-zA-Z])", "£"),
    (r"\\([%#&_])", r"\1"),
    (r"\\[()\[\]]", " "),
    (r"√\s*(\d+|[a-z])", r"\\sqrt{\1}"),
    (r"√", r"\\sqrt "),
    (r"(?<![a-zA-Z\\])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![a-zA-Z\\])(pi|infinity)(?![a-zA-Z])", r"\\\1 "),
    (r"\\infinity", r"\\infty"),
    (r"\*\*(?=\s*[-+\w(])(?<=[\w)]\*\*)", "^"),
    (r"\*\*|`|\*(?=\*)", ""),
]  # fmt: skip
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _SAME]
_DOLLAR = "\ue000"


def plain(text: str) -> str:
    """Return a result on one line, without markup that only affects its appearance."""
    text = re.sub(
        r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+)", lambda match: "^{" + match[1].translate(_SUPERSCRIPTS) + "}", text
    )
    text = re.sub(r"(?<=\d)(?=[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒])", " ", text)
    text = unicodedata.normalize("NFKC", text.replace("º", "°"))
    text = "".join(_CHARACTERS.get(character, character) for character in text)
    text = _without_math_marks(text)
    before = ""
    while before != text:  # commands may be nested
        before = text
        for pattern, replacement in _COMPILED:
            text = pattern.sub(replacement, text)
    text = text.replace(_DOLLAR, "$")
    return _without_marks_around(" ".join(text.split()))


def _without_math_marks(text: str) -> str:
    r"""Return a text without `$…$`; a `$` or `\$` for money stays."""
    text = re.sub(r"\\+\$", _DOLLAR, text)
    if text.count("$") % 2 == 0:
        return text.replace("$", " ")
    return text.replace("$$", " ").replace("$", _DOLLAR)


def _without_marks_around(text: str) -> str:
    """Return a result without trailing punctuation and surrounding quotes, emphasis and braces."""
    before = ""
    while before != text:
        before = text
        text = text.strip().rstrip(".,;:").strip()
        text = re.sub(r"(?<=[\d%°$)])\?$", "", text)
        for left, right in ('""', "''", "**", "__"):
            if len(text) > 2 and text[0] == left and text[-1] == right and left not in text[1:-1]:
                text = text[1:-1]
        if (
            len(text) > 2
            and text[0] == "{"
            and text[-1] == "}"
            and closing(text, 0) == len(text) - 1
        ):
            text = text[1:-1]
    return text


def closing(text: str, opened: int) -> int:
    r"""Return the position of the matching closing brace, or -1; `\{` and `\}` do not count."""
    depth, position = 0, opened
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
        position += 1
    return -1

"""Whether two final results are the same: numbers, and what Math-Verify can read; else words."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from pipeline.scoring.final_answers import final_answer
from pipeline.scoring.interface import Score

_LONGEST = 300
"""Characters of a result; longer ones are compared as words."""
_SECONDS = 5
_SYMBOLS = {
    "\u2212": "-", "\u2012": "-", "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": r"\div ", "\u2044": "/",
    "\u221e": r"\infty ", "\u03c0": r"\pi ", "\u221a": r"\sqrt", "\u2264": r"\le ", "\u2265": r"\ge ",
    "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u00b2": "^2", "\u00b3": "^3",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ",
}  # fmt: skip
_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|mathbf|operatorname|mathit)\s*\{([^{}]*)\}")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\u00b0|\\degree\b|\bdegrees?\b")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:([, ])\d{3})(?:\1\d{3})*(?![\d,])")
_POWER = r"(?:\s*\^\s*\{?[23]\}?)?"
_UNIT = re.compile(rf"(?<=[\d.)}}%])\s*(?:\\?%|[a-zA-Z\u00b5][a-zA-Z./\u00b5]*{_POWER})(?:\s+[a-zA-Z./]+{_POWER})*\s*$")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_NO_ARITHMETIC = re.compile(r"^\d+\s*-\s*\d+$|^\d{1,4}[-/]\d{1,2}[-/]\d{1,4}$|^\d{1,2}:\d{2}")
"""A range, a date, a time."""


@dataclass(frozen=True)
class MathScore(Score):
    """Final results, compared as mathematics."""

    name = "math"
    definition = (
        "1 where the final result (the last box, else what follows ####, else what is stated, else the last number) is the same "
        "number or expression as the reference's, by Math-Verify; units, currency and per cent signs aside"
    )

    def can_score(self, reference: str) -> bool:
        """Whether a reference has a final result."""
        return final_answer(reference) is not None

    def score(self, answer: str, reference: str) -> float:
        """Whether the final results are the same."""
        return float(same_answer(final_answer(answer), final_answer(reference)))


def same_answer(found: str | None, reference: str | None) -> bool:
    """Whether two final results are the same number or expression, or the same words."""
    if found is None or reference is None:
        return False
    one, two = _plain(found), _plain(reference)
    if _folded(one) == _folded(two):
        return True
    bare_one, bare_two = _bare(one), _bare(two)
    if bare_one and _folded(bare_one) == _folded(bare_two):
        return True
    values = _number(bare_one), _number(bare_two)
    if None not in values:
        return values[0] == values[1]
    if any(_is_words(text) for text in (bare_one, bare_two)):
        return False
    return _same_expression(bare_one, bare_two)


def _plain(text: str) -> str:
    """A result without what only shows: spaces of LaTeX, fonts, currency, separators of thousands, the name of an unknown."""
    text = text.strip().strip("*`").strip()
    for symbol, plain in _SYMBOLS.items():
        text = text.replace(symbol, plain)
    text = re.sub(r"^\\[(\[]|\\[)\]]$", "", text).replace(r"\left", "").replace(r"\right", "").replace(r"\dollar", "")
    text = text.replace(r"\$", "").replace("$", "").replace("€", "").replace("£", "").replace("¥", "")
    text = re.sub(r"\\[!]|\{,\}", lambda found: "" if found[0] == r"\!" else ",", text)
    text = re.sub(r"\\[,;: ]|~|\\quad|\\qquad", " ", text)
    while (unwrapped := _WRAPPED.sub(r" \1 ", text)) != text:
        text = unwrapped
    text = _DEGREES.sub(" ", text).replace(r"\%", "%").replace("\u2013", "-")
    text = " ".join(text.split()).rstrip(".,;:! ").strip()
    if not re.search(r"[(\[{]", text.replace(r"\frac{", "")):
        text = _THOUSANDS.sub(lambda group: group[0].replace(",", "").replace(" ", ""), text)
    text = re.sub(r"^[a-zA-Z](?:_\{?\w\}?)?\s*=\s*", "", text)
    return re.sub(r"^\(\s*([a-zA-Z])\s*\)$", r"\1", text)


def _bare(text: str) -> str:
    """A number without its unit."""
    return _UNIT.sub("", text).strip() or text


def _folded(text: str) -> str:
    return re.sub(r"\s*([,()\[\]{}=+*/<>-])\s*", r"\1", text).casefold()


def _number(text: str) -> Fraction | None:
    text = text.replace(" ", "") if re.fullmatch(r"-\s+[\d.]+", text) else text
    if mixed := re.fullmatch(r"(-?)(\d+)\s+(\d+)/([1-9]\d*)", text):
        value = int(mixed[2]) + Fraction(int(mixed[3]), int(mixed[4]))
        return -value if mixed[1] else value
    if re.fullmatch(r"-?\d+/0*[1-9]\d*", text):
        return Fraction(text)
    try:
        number = Decimal(text.removeprefix("+"))
    except InvalidOperation:
        return None
    return Fraction(number) if number.is_finite() and abs(number.adjusted()) < 1000 else None


def _is_words(text: str) -> bool:
    """Whether a result is no expression: words, a range, a date, a time, or too long."""
    if len(text) > _LONGEST or _NO_ARITHMETIC.search(text):
        return True
    words = {word.lower() for word in _WORD.findall(text)}
    return bool(words - {"or", "and", "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "inf", "frac"})


def _same_expression(one: str, two: str) -> bool:
    from math_verify import verify

    return bool(verify(_parsed(two), _parsed(one), timeout_seconds=_limit(), raise_on_error=False))


def _parsed(text: str) -> Any:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    text = re.sub(r"\s+(?:or|and)\s+", ",", text).replace("%", r"\%")
    return parse(
        f"${text}$",
        extraction_config=[LatexExtractionConfig(), ExprExtractionConfig()],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=_limit(),
        raise_on_error=False,
    )


def _limit() -> int | None:
    """Seconds for one step of Math-Verify, which measures them by a signal: those reach the main thread alone."""
    return _SECONDS if threading.current_thread() is threading.main_thread() else None

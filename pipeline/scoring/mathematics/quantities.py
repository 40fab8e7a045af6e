"""A number in one of its notations, with what it counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pipeline.scoring.mathematics.notation import CURRENCY
from pipeline.scoring.mathematics.units import canonical_word, unit_of

_LONGEST = 400
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ROUNDING = Fraction(5, 10**7)

WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:[ '_]\d{3})+|\d+)(?![\d])"
DECIMAL = rf"(?:{WHOLE}(?:\.\d+)?|\.\d+)"
MONEY = (
    rf"(?:(?:US|A|C|NZ|HK|S)?[{re.escape(CURRENCY)}]|(?:USD|EUR|GBP|JPY|CNY|INR|Rs\.?)(?=[\s\d]))"
)
_SCIENTIFIC = r"(?:[eE](?P<e>[+-]?\d{1,4})|\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*(?P<power>[+-]?\d{1,4})\s*\}?)"
_FRACTION = (
    rf"(?:\\frac\s*\{{\s*(?P<up>-?{DECIMAL})\s*\}}\s*\{{\s*(?P<down>-?{DECIMAL})\s*\}}"
    rf"|(?P<over>{DECIMAL})\s*/\s*(?P<under>{DECIMAL}))"
)
_ONLY = _FRACTION.replace("?P<", "?P<only")
_NUMBER = re.compile(
    rf"(?P<sign>[-+–]?)\s*(?P<money>{MONEY})?\s*(?P<inner>[-+–]?)\s*"
    rf"(?:(?P<mixed>{WHOLE})(?:\s+|(?=\\))(?!/){_FRACTION}|{_ONLY}|10\s*\^\s*\{{?(?P<ten>[+-]?\d{{1,3}})\}}?"
    rf"|(?P<decimal>{DECIMAL}){_SCIENTIFIC}?)"
    rf"(?P<magnitude>\s+(?:{'|'.join(_MAGNITUDES)})\b)?"
    r"(?P<percent>\s*(?:%|per\s?cent\b|percentage\b|pct\b\.?))?",
)


@dataclass(frozen=True)
class Quantity:
    """A number that was read.

    Attributes:
        value: exact.
        unit: a known unit by its own name, other words after a blank, or nothing.
        percent: it is so many of a hundred.
        decimal: it was written with digits alone, not as a fraction, so it may be a rounded one.
    """

    value: Fraction
    unit: str
    percent: bool
    decimal: bool


def read_quantity(text: str) -> Quantity | None:
    """The number that a text is, in the notation that `plain` leaves; None where it is anything
    else, or more than one."""
    if len(text) > _LONGEST or (match := _NUMBER.match(text)) is None:
        return None
    if match["sign"] and match["inner"]:
        return None
    behind = text[match.end() :]
    unit = unit_of(behind, adjacent=not behind[:1].isspace())
    value = _value(match)
    if unit is None or value is None:
        return None
    if match["money"]:
        money = (
            canonical_word(match["money"].lstrip("AUSCNZHK") or match["money"]) or match["money"]
        )
        unit = unit if unit and not unit.startswith(" ") else money
    if match["magnitude"]:
        value *= 10 ** _MAGNITUDES[match["magnitude"].strip()]
    negative = "-" in match["sign"] + match["inner"] or "–" in match["sign"] + match["inner"]
    decimal = not any(match[name] for name in ("up", "over", "onlyup", "onlyover"))
    return Quantity(-value if negative else value, unit, bool(match["percent"]), decimal)


def same_quantity(one: Quantity, other: Quantity) -> bool:
    """Whether two numbers are the same; a percentage is so many of a hundred or so many, as the
    other is written.

    A unit that one leaves out does not count, and words that are no unit never do.
    """
    units = [each.unit for each in (one, other) if each.unit and not each.unit.startswith(" ")]
    if len(units) == 2 and units[0] != units[1]:
        return False
    if one.percent == other.percent:
        return _same_value(one, other)
    if units:
        return False
    percentage, number = (one, other) if one.percent else (other, one)
    return _same_value(percentage, number) or number.value == percentage.value / 100


def _same_value(one: Quantity, other: Quantity) -> bool:
    """The same number; of a fraction and a decimal number, to six places behind the point."""
    if one.value == other.value:
        return True
    return one.decimal != other.decimal and abs(one.value - other.value) <= _ROUNDING


def _value(match: re.Match[str]) -> Fraction | None:
    if match["decimal"]:
        return _plain_number(match["decimal"]) * Fraction(10) ** int(
            match["e"] or match["power"] or 0
        )
    if match["ten"]:
        return Fraction(10) ** int(match["ten"])
    group = "" if match["mixed"] else "only"
    up, down = (
        match[f"{group}{name}"] or match[f"{group}{other}"]
        for name, other in (("up", "over"), ("down", "under"))
    )
    bottom = _plain_number(down)
    if bottom == 0:
        return None
    value = _plain_number(up) / bottom
    if not match["mixed"]:
        return value
    return _plain_number(match["mixed"]) + value if 0 < value < 1 else None


def _plain_number(text: str) -> Fraction:
    return Fraction(re.sub(r"[, '_]", "", text))

"""Quantities: numbers in any notation, with their units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from pipeline.scoring.mathematics.notation import CURRENCY
from pipeline.scoring.mathematics.units import canonical_word, unit_of

_MAX_CHARACTERS = 400
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ROUNDING = Fraction(5, 10**7)

WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:[ '_]\d{3})+|\d+)(?![\d])"
DECIMAL = rf"(?:{WHOLE}(?:\.\d+)?|\.\d+)"
MONEY = (
    rf"(?:(?:US|A|C|NZ|HK|S)?[{re.escape(CURRENCY)}]|(?:USD|EUR|GBP|JPY|CNY|INR|Rs\.?)(?=[\s\d]))"
)
_SCIENTIFIC = (
    r"(?:[eE](?P<e>[+-]?\d{1,4})"
    r"|\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*(?P<power>[+-]?\d{1,4})\s*\}?)"
)
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
    """A number with its unit.

    Attributes:
        value: exact.
        unit: the canonical name of a known unit, other words after a blank, or empty.
        percent: whether it is a percentage.
        decimal: whether it was written in digits, not as a fraction, and so may be rounded.
    """

    value: Fraction
    unit: str
    percent: bool
    decimal: bool


def read_quantity(text: str) -> Quantity | None:
    """Return the quantity that a text in plain notation consists of, or None."""
    if len(text) > _MAX_CHARACTERS or (match := _NUMBER.match(text)) is None:
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
    """Return whether two quantities are equal; 50% equals both 0.5 and 50.

    Units are compared only if both are known.
    """
    units = [
        quantity.unit
        for quantity in (one, other)
        if quantity.unit and not quantity.unit.startswith(" ")
    ]
    if len(units) == 2 and units[0] != units[1]:
        return False
    if one.percent == other.percent:
        return _same_value(one, other)
    if units:
        return False
    percentage, number = (one, other) if one.percent else (other, one)
    return _same_value(percentage, number) or number.value == percentage.value / 100


def _same_value(one: Quantity, other: Quantity) -> bool:
    """Return whether two values are equal, a fraction and a decimal to six decimal places."""
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

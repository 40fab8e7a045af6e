"""Units of measure and money, and their synonyms."""

from __future__ import annotations

import re

_NAMES = """
mm millimeter millimetre | cm centimeter centimetre | dm decimeter
m meter metre | km kilometer kilometre
inch in inches | ft foot feet | yd yard | mi mile
mg milligram | g gram gm | kg kilogram kilo kgs | lb pound lbs | oz ounce | ton tonne
ms millisecond | s sec second | min minute mins | h hr hour hrs
day | week wk | month | year yr yrs
ml milliliter millilitre mL | l L liter litre | gal gallon
mph | kmh kmph kph | Hz hertz | J joule | kJ | W watt | kW
V volt | N newton | Pa | K kelvin | mol mole | ohm Ω
° degree deg | °C celsius centigrade | °F fahrenheit | rad radian
$ dollar usd USD US$ buck | cent ¢ | € euro eur EUR | £ gbp GBP
¥ yen jpy JPY yuan cny CNY | ₹ rupee inr INR Rs Rs. rs rs.
am | pm
"""
_CANONICAL = {
    name: group.split()[0]
    for line in _NAMES.strip().splitlines()
    for group in line.split("|")
    for name in group.split()
}
_MONTHS = re.compile(
    r"\b(?:jan(?:uary)?|feb(?:ruary)?|march|mar|april|apr|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|"
    r"dec(?:ember)?)\b",
    re.IGNORECASE,
)
_FUNCTIONS = {
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
    "exp",
    "mod",
    "gcd",
    "lcm",
    "max",
    "min",
    "and",
    "or",
    "to",
    "of",
}
_POWER = r"(?:\^\{?-?\d\}?)?"
_WORD = rf"(?:°\s?[CF]?|[^\W\d_]+\.?(?:['-][^\W\d_]+)*|[¢Ω{re.escape('€£¥₹₩$')}])(?:{_POWER})"
_UNITS = re.compile(rf"{_WORD}(?:\s*(?:/|\\cdot|\*)\s*{_WORD}|\s+{_WORD}|\s*/\s*\(?{_WORD}\)?)*")


def canonical_word(word: str) -> str | None:
    """Return the unit that a word means, singular or plural, or None."""
    word = word.replace(" ", "")
    for form in (
        word,
        word.lower(),
        word.lower().rstrip("."),
        word.lower().rstrip(".").removesuffix("s"),
        word.removesuffix("s"),
    ):
        if form in _CANONICAL:
            return _CANONICAL[form]
    return None


def unit_of(text: str, *, adjacent: bool) -> str | None:
    """Return the unit after a number, or None if the text is part of an expression or a date.

    Args:
        text: after the number.
        adjacent: whether no blank precedes it, as in `5x`.

    Returns:
        The canonical name of a known unit; other words after a blank, as they are not compared.
    """
    text = re.sub(r"\s*\([^()]*[^\W\d_]{3}[^()]*\)$", "", text.strip())
    text = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text)
    if not text or not _UNITS.fullmatch(text) or _MONTHS.search(text):
        return None if text else ""
    parts = re.findall(rf"{_WORD}|/|\\cdot|\*", text)
    words = [re.sub(r"\^.*", "", part) for part in parts if part not in ("/", "*", r"\cdot")]
    units = [canonical_word(word) for word in words]
    if words[0].lower() in _FUNCTIONS and units[0] is None:
        return None
    if any(
        len(word) == 1 and unit is None and word != "a"
        for word, unit in zip(words, units, strict=True)
    ):
        return None
    if adjacent and (
        units[0] is None and len(words[0]) < 3 and words[0] not in ("st", "nd", "rd", "th")
    ):
        return None
    if adjacent and len(words[0]) == 1 and words[0] not in "mgshLlWJNVKΩ°¢€£¥₹₩$":
        return None
    return _canonical_of(text) or f" {text.lower()}"


def _canonical_of(text: str) -> str | None:
    """Return a compound of known units, such as km/h, in one notation, or None."""
    text = re.sub(r"\s+per\s+", "/", text)
    text = re.sub(
        r"\b(sq(?:uare)?|cubic|cu)\.?\s+([^\W\d_]+)",
        lambda match: match[2] + ("^2" if match[1][0] == "s" else "^3"),
        text,
    )
    text = re.sub(r"([^\W\d_]+)\s+squared\b", r"\1^2", text)
    text = re.sub(r"([^\W\d_]+)\s+cubed\b", r"\1^3", text)
    text = re.sub(r"(?:°|degrees?)\s*(?:C|celsius)\b\.?", "celsius", text, flags=re.IGNORECASE)
    text = re.sub(
        r"(?:°|degrees?)\s*(?:F|fahrenheit)\b\.?", "fahrenheit", text, flags=re.IGNORECASE
    )
    units = []
    for part in re.findall(rf"{_WORD}|/", re.sub(r"[()]", "", text)):
        word, _, power = part.partition("^")
        unit = "/" if part == "/" else canonical_word(word)
        if unit is None:
            return None
        units.append(unit + (f"^{power.strip('{}')}" if power else ""))
    name = "".join(units)
    return {"mi/h": "mph", "km/h": "kmh"}.get(name, name) if units else None

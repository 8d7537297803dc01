"""Patterns of times, such as ``dd/MM/yyyy HH:mm``, with the letters of Java's ``DateTimeFormatter``."""

import re
from dataclasses import dataclass
from functools import lru_cache

_GROUPS = {
    "yyyy": r"(?P<year>[0-9]{4})", "yy": r"(?P<short_year>[0-9]{2})",
    "MM": r"(?P<month>[0-9]{2})", "M": r"(?P<month>[0-9]{1,2})",
    "MMM": r"(?P<month_name>[A-Za-z]{3})", "MMMM": r"(?P<month_name>[A-Za-z]{3,9})",
    "dd": r"(?P<day>[0-9]{2})", "d": r"(?P<day>[0-9]{1,2})",
    "HH": r"(?P<hour>[0-9]{2})", "H": r"(?P<hour>[0-9]{1,2})",
    "hh": r"(?P<half_hour>[0-9]{2})", "h": r"(?P<half_hour>[0-9]{1,2})",
    "mm": r"(?P<minute>[0-9]{2})", "m": r"(?P<minute>[0-9]{1,2})",
    "ss": r"(?P<second>[0-9]{2})", "s": r"(?P<second>[0-9]{1,2})",
    "a": r"(?P<half>[AaPp][Mm])",
    "E": r"[A-Za-z]{3}", "EEE": r"[A-Za-z]{3}", "EEEE": r"[A-Za-z]{3,9}",
    "XXX": r"(?P<offset>Z|[+-][0-9]{2}:[0-9]{2})", "XX": r"(?P<offset>Z|[+-][0-9]{4})",
    "X": r"(?P<offset>Z|[+-][0-9]{2}(?:[0-9]{2})?)",
    "xxx": r"(?P<offset>[+-][0-9]{2}:[0-9]{2})", "xx": r"(?P<offset>[+-][0-9]{4})",
    "x": r"(?P<offset>[+-][0-9]{2}(?:[0-9]{2})?)",
    "Z": r"(?P<offset>[+-][0-9]{4})", "z": r"(?P<offset>UTC|GMT|Z)", "VV": r"(?P<offset>UTC|GMT|Z)",
}  # fmt: skip
"""Equal letters of a pattern, and the text that they stand for."""

_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z]+)|(.)")


@dataclass(frozen=True)
class TimePattern:
    """A pattern as a regular expression with a group per part of the time."""

    expression: str
    groups: tuple[str, ...]

    @property
    def has_offset(self) -> bool:
        """Whether its times are instants."""
        return "offset" in self.groups


@lru_cache(maxsize=64)
def time_pattern(text: str, pivot: int | None = None) -> TimePattern:
    """Read a pattern. A part in square brackets may be missing from a text.

    Args:
        pivot: the first of the hundred years that ``yy`` stands for.

    Raises:
        ValueError: letters are not known, or a part of the date is missing or stands there twice.
    """
    expression = "".join(_part(*found.groups()) for found in _TOKEN.finditer(text))
    groups = tuple(re.findall(r"\(\?P<(\w+)>", expression))
    has = set(groups)
    if twice := sorted({name for name in groups if groups.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} stands there twice")
    if not (has & {"year", "short_year"} and has & {"month", "month_name"} and "day" in has):
        raise ValueError("a year (yyyy), a month (MM) and a day (dd) are needed")
    if "short_year" in has and pivot is None:
        raise ValueError("years of two digits (yy) need pivot_year, the first of the hundred years that they stand for")
    if ("half_hour" in has) != ("half" in has):
        raise ValueError("hours of half a day (hh) need AM or PM (a), and the reverse")
    return TimePattern(f"^{expression}$", groups)


def _part(quoted: str | None, letters: str | None, other: str | None) -> str:
    if letters:
        return "".join(_group(found[0]) for found in re.finditer(r"([A-Za-z])\1*", letters))
    if other:
        return {"[": "(?:", "]": ")?"}.get(other) or re.escape(other)
    return re.escape((quoted or "'").replace("''", "'"))


def _group(letters: str) -> str:
    if set(letters) == {"S"} and len(letters) <= 9:
        return rf"(?P<fraction>[0-9]{{{len(letters)}}})"
    if letters not in _GROUPS:
        raise ValueError(f"'{letters}' is no known part of a time; known: {', '.join(_GROUPS)}, S to SSSSSSSSS")
    return _GROUPS[letters]

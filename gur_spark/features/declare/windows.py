"""Windows: runs of whole hours before as_of. A window of whole days is declared and stored in days.

A length is a number of days (``7``) or, where it is not whole days, a text with its hours (``"6h"``).
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DAY_HOURS = 24
LONGEST = 3650
"""Days of the longest window."""

_TEXT = re.compile(r"(\d{1,6})\s*([hd])")

Days = Annotated[int, Field(ge=1, le=LONGEST)]


def parse_length(value: Any) -> Any:
    """A length as it is stored: ``7``, ``"7d"`` and ``"168h"`` are 7, and ``"6h"`` stays as it is.

    Raises:
        ValueError: it is no length, or not from one hour to 3650 days.
    """
    found = _TEXT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"expected days such as 7 or '7d', or hours such as '6h', got {value!r}")
    hours = int(found[1]) * (1 if found[2] == "h" else DAY_HOURS) if found else value * DAY_HOURS
    if not 1 <= hours <= LONGEST * DAY_HOURS:
        raise ValueError(
            f"expected a length greater than or equal to 1 hour and less than or equal to {LONGEST} days, got {value!r}"
        )
    return name_of(hours) if hours % DAY_HOURS else hours // DAY_HOURS


Length = Annotated[int | str, BeforeValidator(parse_length)]
"""Length of a window: days, or a text such as ``6h``."""


def hours_of(length: int | str) -> int:
    """Hours of a length."""
    return length * DAY_HOURS if isinstance(length, int) else int(length.removesuffix("h"))


def name_of(hours: int) -> str:
    """Name of so many hours: ``6h``, or ``7d`` for whole days."""
    return f"{hours}h" if hours % DAY_HOURS else f"{hours // DAY_HOURS}d"


def in_words(hours: int) -> str:
    """So many hours in words: ``6 hours``, or ``7 days`` for whole days."""
    return f"{hours} hours" if hours % DAY_HOURS else f"{hours // DAY_HOURS} days"


class Window(BaseModel):
    """A run of hours that ends at as_of, or some hours before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: int | None = Field(ge=0, le=LONGEST)
    """Whole days of its length; None: from the first event on."""
    hours: int = Field(default=0, ge=0, lt=DAY_HOURS, exclude_if=lambda hours: not hours)
    """Hours of its length beyond the whole days."""
    before: int = Field(default=0, ge=0, le=LONGEST)
    """Whole days from the window's end to as_of."""
    before_hours: int = Field(default=0, ge=0, lt=DAY_HOURS, exclude_if=lambda hours: not hours)
    """Hours from the window's end to as_of beyond the whole days."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """Accept ``30`` for ``{days: 30}``, ``6h`` for ``{hours: 6}`` and ``lifetime`` for ``{days: null}``.

        In the long form, ``{hours: 36, before: 6h}`` stands for ``{days: 1, hours: 12, before_hours: 6}``. A text of it
        has its own unit: ``{days: 7d}``, ``{hours: 2d}``.
        """
        if isinstance(value, Window):
            return value
        if value == "lifetime":
            return {"days": None}
        if not isinstance(value, Mapping):
            return _split("days", "hours", hours_of(parse_length(value)))
        if not {"days", "hours"} & value.keys():
            raise ValueError("expected a length: {days: 7}, {hours: 6}, or {days: null} from the first event on")
        others = {key: part for key, part in value.items() if key not in cls.model_fields}
        gap = _split("before", "before_hours", _hours_in(value, "before", "before_hours"))
        if "days" in value and value["days"] is None:
            if value.get("hours"):
                raise ValueError("hours: a window from the first event on (days: null) has no hours")
            return {"days": None, **gap, **others}
        length = _hours_in(value, "days", "hours")
        if not length:
            raise ValueError("expected a length greater than or equal to 1 hour")
        return {**_split("days", "hours", length), **gap, **others}

    @classmethod
    def of(cls, length: int | str, before: int | str = 0) -> "Window":
        """Make a window from its length and, where it does not end at as_of, the length up to as_of."""
        gap = _split("before", "before_hours", hours_of(parse_length(before))) if before else {}
        return cls(**_split("days", "hours", hours_of(parse_length(length))), **gap)

    @property
    def length(self) -> int | None:
        """Length in hours; None: from the first event on."""
        return None if self.days is None else self.days * DAY_HOURS + self.hours

    @property
    def gap(self) -> int:
        """Hours from the window's end to as_of."""
        return self.before * DAY_HOURS + self.before_hours

    @property
    def reach(self) -> timedelta | None:
        """Time from the window's beginning to as_of; None: it begins with the first event."""
        return None if self.length is None else timedelta(hours=self.gap + self.length)

    @property
    def whole_days(self) -> bool:
        """Whether it begins and ends at midnight, if as_of does."""
        return not self.hours and not self.before_hours

    @property
    def name(self) -> str:
        """End of a column's name."""
        length = "lifetime" if self.length is None else name_of(self.length)
        return f"{length}_before_{name_of(self.gap)}" if self.gap else length

    @property
    def meaning(self) -> str:
        until = f"{in_words(self.gap)} before as_of" if self.gap else "as_of"
        return f"before {until}" if self.length is None else f"in the {in_words(self.length)} before {until}"


def _split(days: str, hours: str, length: int) -> dict[str, int]:
    """So many hours as the values of two keys: whole days, and hours beyond them."""
    whole, beyond = divmod(length, DAY_HOURS)
    return {days: whole} | ({hours: beyond} if beyond else {})


def _hours_in(value: Mapping[str, Any], days: str, hours: str) -> int:
    """Hours of two keys together, one of days and one of hours; a key that is not given has none.

    Raises:
        ValueError: naming the key whose value is no length.
    """
    total = 0
    for key in (days, hours):
        given = value.get(key, 0)
        try:
            if isinstance(given, bool) or given != 0:
                in_hours = key == hours and isinstance(given, int) and not isinstance(given, bool)
                total += hours_of(parse_length(f"{given}h" if in_hours else given))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return total


def longest(windows: Sequence[Window]) -> Window:
    """The longest window, the first among equals; one from the first event on is longer than all others."""
    return max(windows, key=lambda w: LONGEST * DAY_HOURS + 1 if w.length is None else w.length)

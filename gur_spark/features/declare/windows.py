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

        In the long form, ``{hours: 36, before: 6h}`` stands for ``{days: 1, hours: 12, before_hours: 6}``.
        """
        if value == "lifetime":
            return {"days": None}
        if isinstance(value, int | str):
            return _split("days", "hours", parse_length(value))
        if not isinstance(value, Mapping):
            return value
        made = dict(value)
        if isinstance(made.get("hours"), int) and "days" not in made:
            made |= {"hours": 0, **_split("days", "hours", parse_length(f"{made['hours']}h"))}
        if isinstance(made.get("before"), str):
            made |= _split("before", "before_hours", parse_length(made["before"]))
        if "days" in made and made["days"] is None and made.get("hours"):
            raise ValueError("hours: a window from the first event on (days: null) has no hours")
        if made.get("days") == 0 and not made.get("hours"):
            raise ValueError("expected a length greater than or equal to 1 hour")
        return made

    @classmethod
    def of(cls, length: int | str, before: int | str = 0) -> "Window":
        """Make a window from its length and, where it does not end at as_of, the length up to as_of."""
        gap = _split("before", "before_hours", parse_length(before)) if before else {}
        return cls(**_split("days", "hours", parse_length(length)), **gap)

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


def _split(days: str, hours: str, length: int | str) -> dict[str, int]:
    """A length as the values of two keys: whole days, and hours beyond them."""
    whole, beyond = divmod(hours_of(length), DAY_HOURS)
    return {days: whole} | ({hours: beyond} if beyond else {})


def longest(windows: Sequence[Window]) -> Window:
    """The longest window, the first among equals; one from the first event on is longer than all others."""
    return max(windows, key=lambda w: LONGEST * DAY_HOURS + 1 if w.length is None else w.length)

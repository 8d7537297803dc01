"""Operations on the events themselves: their number, their frequency and their times."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import pyarrow as pa

from gur_spark.errors import nearest
from gur_spark.features.declare.spec import Parameter
from gur_spark.features.declare.windows import Window, longest
from gur_spark.features.operations.base import Derived, Operation, OutputColumn, lists, operation
from gur_spark.features.states.activity import Activity, Visits
from gur_spark.features.states.base import DAY_US, ValueColumn
from gur_spark.features.states.sequence import Gaps, Times
from gur_spark.features.states.tallies import Clock
from gur_spark.features.states.tiles import DateWindows


@operation
class Events(Operation):
    name, field_kinds, state = "events", ("events",), Activity

    def outputs(self) -> Sequence[OutputColumn]:
        return [OutputColumn(name="events", dtype="long", unit="events", meaning="events {within}", null="never")]

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        return [(pa.array(n_G),) for n_G in values.events_GW.T]


@operation
class ActiveDays(Operation):
    name, field_kinds, state = "active_days", ("events",), Activity

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "UTC days with an event {within}"
        return [OutputColumn(name="active_days", dtype="long", unit="days", meaning=meaning, null="never")]

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        return [(pa.array(days_G),) for days_G in values.days_GW.T]


@operation
class SilentDays(Operation):
    """Length of the longest run of days without an event."""

    name, field_kinds, state = "silent_days", ("events",), Activity

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "longest run of UTC days without an event {within}"
        return [OutputColumn(name="silent_days", dtype="long", unit="days", meaning=meaning, null="never")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        if any(w.length is None for w in windows):
            raise ValueError("takes windows with an end: before a user's first event there is no beginning")
        if not all(w.whole_days for w in windows):
            raise ValueError("takes windows of whole days")
        return list(windows)

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        return [(pa.array(days_G),) for days_G in values.silent_days_GW.T]


class _Since(Operation):
    field_kinds, state, one_column = ("events",), Activity, True
    which: str

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = f"time from the {self.which} event {{within}} to as_of midnight UTC"
        return [OutputColumn(name=f"{self.name}_days", unit="days", meaning=meaning, null="no event")]

    def windows(self, windows: Sequence[Window]) -> list[Window]:
        """The longest window alone, because a shorter window has the same number or none."""
        return [longest(windows)]


@operation
class Recency(_Since):
    name, which = "recency", "last"

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        silent_GW = values.events_GW == 0
        return _columns(values.last_us_GW / DAY_US, silent_GW)


@operation
class Tenure(_Since):
    name, which = "tenure", "first"

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        silent_GW = values.events_GW == 0
        return _columns(values.first_us_GW / DAY_US, silent_GW)


@operation
class GapMean(Operation):
    name, field_kinds, state = "gap_mean", ("events",), Activity

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "mean time between neighbouring events {within}"
        return [OutputColumn(name="gap_mean", unit="days", meaning=meaning, null="fewer than two events")]

    def finalize(self, values: Visits, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        gaps_GW = values.events_GW - 1
        between_GW = values.first_us_GW - values.last_us_GW
        return _columns(between_GW / (np.maximum(gaps_GW, 1) * DAY_US), gaps_GW < 1)


@operation
class GapStd(Operation):
    name, field_kinds, state = "gap_std", ("events",), Times

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = "population standard deviation of the times between neighbouring events {within}"
        return [OutputColumn(name="gap_std", unit="days", meaning=meaning, null="fewer than two events")]

    def finalize(self, values: Gaps, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        std_GW, gaps_GW = values.std_days()
        return _columns(std_GW, gaps_GW < 1)


class _ClockCounts(Operation):
    field_kinds, state, one_number = ("events",), Clock, False
    classes: int
    sql: str
    unit: str

    def __init__(self, value: ValueColumn, parameter: Parameter | None = None) -> None:
        super().__init__(value)
        zones = available_timezones()
        zone = "UTC" if parameter is None else parameter
        if zone not in zones:
            raise ValueError(f"takes a time zone, got {parameter!r}{nearest(str(parameter), sorted(zones))}")
        self._zone = str(zone)

    def outputs(self) -> Sequence[OutputColumn]:
        meaning = f"events {{within}} per {self.unit}, in {self._zone}"
        name = f"{self.name}_{self._zone_name}"
        return [OutputColumn(name=name, dtype="array<int>", unit="events", meaning=meaning, null="never")]

    @property
    def _zone_name(self) -> str:
        return re.sub(r"\W+", "_", self._zone).lower()

    def derived(self) -> Mapping[str, Derived]:
        sql = self.sql.format(local=f"from_utc_timestamp(event_time, '{self._zone}')")
        return {f"_{self.name}_{self._zone_name}": Derived(sql, bits=5)}

    def options(self) -> tuple[Any, ...]:
        return (self.classes,)

    def finalize(self, values: Any, windows: DateWindows) -> list[tuple[pa.Array, ...]]:
        groups, number, classes = values.shape
        offsets = np.arange(groups + 1) * classes
        return [(lists(offsets, values[:, w].reshape(-1).astype(np.int32)),) for w in range(number)]


@operation
class Hours(_ClockCounts):
    """``{hours: Europe/Berlin}``: number of events in each of 24 hours of the day."""

    name, classes, unit = "hours", 24, "hour of the day (0 to 23)"
    sql = "hour({local})"


@operation
class Weekdays(_ClockCounts):
    """``{weekdays: Europe/Berlin}``: number of events on each of 7 days of the week."""

    name, classes, unit = "weekdays", 7, "day of the week (Monday first)"
    sql = "(dayofweek({local}) + 5) % 7"  # On Sail, weekday() of a Sunday is -1.


def _columns(values_GW: Any, null_GW: Any) -> list[tuple[pa.Array, ...]]:
    return [(pa.array(v_G, mask=null_G),) for v_G, null_G in zip(values_GW.T, null_GW.T, strict=True)]

"""Counts of the rows of a file: a worker makes them, and the driver adds them up."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.config.logs import AnyLog
from gur_spark.events.json_rows import MetKeys
from gur_spark.events.parse import ParsedRows
from gur_spark.events.raw import RawRows, nulls

SAMPLE_CHARS = 200


@dataclass(kw_only=True)
class Bad:
    """Rows that are rejected for one reason in one field."""

    rows: int
    sample: str
    """The least text of a row, cut."""
    when: str | None
    """Text of its time, where that is out of bounds."""

    def merge(self, other: "Bad") -> None:
        """Add rows of the same reason and field."""
        self.rows += other.rows
        if other.sample < self.sample:
            self.sample, self.when = other.sample, other.when


Problem = tuple[str, str | None, str]
"""Reason code why a file cannot be used, the raw column that it is about, and the cause in words."""


@dataclass(kw_only=True)
class Report:
    """Counts of the rows of a file, or of a part of it."""

    file: int
    """Position of the file among those of the run."""
    rows: int = 0
    accepted: int = 0
    filtered: int = 0
    bad: dict[tuple[str, str | None], Bad] = field(default_factory=dict)
    """Rejected rows by reason and field."""
    rounded: Counter[str] = field(default_factory=Counter)
    """Number of rounded values by the name of their count."""
    first_us: int | None = None
    last_us: int | None = None
    """First and last accepted event time, in microseconds since 1970."""
    met: MetKeys = field(default_factory=MetKeys)
    """Keys of JSON objects."""
    problem: Problem | None = None
    """Cause why the file cannot be used."""

    def add(self, raw: RawRows, parsed: ParsedRows, log: AnyLog, times: pa.Array) -> None:
        """Count the rows of a block; ``times`` are those of its accepted rows."""
        self.rows += len(raw)
        self.accepted += len(times)
        self.filtered += parsed.filtered
        self.rounded.update({f"rounded_{name}": rows for name, rows in parsed.rounded().items()})
        if len(times):
            bounds = pc.min_max(times.cast(pa.int64())).as_py()
            self._widen(bounds["min"], bounds["max"])
        if len(raw) > len(times) + parsed.filtered:
            self._count_bad(raw, parsed, log)

    def merge(self, other: "Report") -> None:
        """Add the counts of another report."""
        self.rows += other.rows
        self.accepted += other.accepted
        self.filtered += other.filtered
        self.rounded.update(other.rounded)
        self.met.wanted |= other.met.wanted
        self.met.sample = self.met.sample or other.met.sample
        self.problem = self.problem or other.problem
        for key, bad in other.bad.items():
            self._merge_bad(key, bad)
        if other.first_us is not None and other.last_us is not None:
            self._widen(other.first_us, other.last_us)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON has it."""
        bad = [[*key, bad.rows, bad.sample, bad.when] for key, bad in self.bad.items()]
        return {**vars(self), "bad": bad, "met": {"wanted": sorted(self.met.wanted), "sample": self.met.sample}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Report":
        """The report that ``to_json`` wrote."""
        bad = {(reason, about): Bad(rows=n, sample=text, when=when) for reason, about, n, text, when in values["bad"]}
        met = MetKeys(wanted=set(values["met"]["wanted"]), sample=values["met"]["sample"])
        problem = tuple(values["problem"]) if values["problem"] else None
        more = {"bad": bad, "met": met, "problem": problem, "rounded": Counter(values["rounded"])}
        return cls(**{**values, **more})

    def _count_bad(self, raw: RawRows, parsed: ParsedRows, log: AnyLog) -> None:
        rows = parsed.rejected
        times = raw.texts.get(log.fields.event_time.column or "", nulls(len(raw)))
        columns = (parsed.reason, parsed.field, times)
        texts = (*(column.filter(rows).to_pylist() for column in columns), raw.delivered(rows).to_pylist())
        for reason, about, when, text in zip(*texts, strict=True):
            time = when if reason == "time_out_of_bounds" else None
            self._merge_bad((reason, about), Bad(rows=1, sample=text[:SAMPLE_CHARS], when=time))

    def _merge_bad(self, key: tuple[str, str | None], bad: Bad) -> None:
        if key in self.bad:
            self.bad[key].merge(bad)
        else:
            self.bad[key] = bad

    def _widen(self, first: int, last: int) -> None:
        self.first_us = first if self.first_us is None else min(first, self.first_us)
        self.last_us = last if self.last_us is None else max(last, self.last_us)

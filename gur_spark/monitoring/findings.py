"""What was measured of a date, judged by the thresholds, and as a table for people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gur_spark.config.monitoring import Levels, Monitor

Kind = Literal["snapshot", "feature", "embedding", "freshness"]
Status = Literal["ok", "warn", "alert"]

WORST_FIRST: Sequence[Status] = ("alert", "warn", "ok")
CAUSES_FIRST: Sequence[Kind] = ("freshness", "snapshot", "feature", "embedding")
"""A feed that stopped moves features, and those move embeddings."""

LINES = 20
"""Features that a text lists."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number; ``measure`` is the name of its threshold in the configuration."""

    kind: Kind
    subject: str
    """A column of the aggregates, a log, ..."""
    measure: str
    value: float
    reference: str
    """What it was compared with."""


@dataclass(frozen=True, kw_only=True)
class Finding(Measurement):
    """A measurement and what the thresholds say of it."""

    warn_above: float | None
    alert_above: float | None
    status: Status

    @property
    def severity(self) -> float:
        """The value over the highest level that it has: above 1 is worth a look."""
        level = self.alert_above if self.alert_above is not None else self.warn_above
        return self.value / level if level else float("inf") if self.status != "ok" else 0.0


def judge(measured: Iterable[Measurement], settings: Monitor) -> list[Finding]:
    """Every measurement with its status, worst first, then causes first; what is ignored has no levels and is ok."""
    silent = Levels(warn=None, alert=None)
    found = []
    for one in measured:
        levels = silent if one.subject in settings.ignore else getattr(settings.thresholds, one.measure)
        found.append(
            Finding(**vars(one), warn_above=levels.warn, alert_above=levels.alert, status=status(one.value, levels))
        )
    return sorted(found, key=_place)


def _place(finding: Finding) -> tuple[int, int, float, str, str]:
    first = WORST_FIRST.index(finding.status), CAUSES_FIRST.index(finding.kind)
    return (*first, -finding.severity, finding.subject, finding.measure)


def status(value: float, levels: Levels) -> Status:
    """By the highest level that the value is above."""
    if levels.alert is not None and value > levels.alert:
        return "alert"
    return "warn" if levels.warn is not None and value > levels.warn else "ok"


def worst(findings: Iterable[Finding]) -> Status:
    found = {finding.status for finding in findings}
    return next((status for status in WORST_FIRST if status in found), "ok")


def summary(findings: Sequence[Finding]) -> str:
    """Such as ``2 alerts, 1 warning, 301 ok``."""
    counts = Counter[str](finding.status for finding in findings)
    words = {"alert": "alert", "warn": "warning"}
    told = [f"{counts[s]} {word}{'' if counts[s] == 1 else 's'}" for s, word in words.items()]
    return ", ".join([*told, f"{counts['ok']} ok"])


def to_text(findings: Sequence[Finding]) -> str:
    """A line per finding, of features only the worst ``LINES`` that are not ok."""
    features = [finding for finding in findings if finding.kind == "feature"]
    left_out = [f for n, f in enumerate(features) if n >= LINES or f.status == "ok"]
    rows: list[tuple[str, ...]] = [("", "subject", "measure", "value", "warn", "alert", "against")]
    rows += [_cells(finding) for finding in findings if finding not in left_out]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if left_out:
        lines.append(f"and of features: {summary(left_out)}; the worst of these: {left_out[0].subject}")
    return "\n".join(lines)


def _cells(finding: Finding) -> tuple[str, ...]:
    levels = (number(level) for level in (finding.warn_above, finding.alert_above))
    name = finding.status if finding.status == "ok" else finding.status.upper()
    return (name, finding.subject, finding.measure, number(finding.value), *levels, finding.reference)


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    return "-" if value is None else f"{value:.3g}"

"""Findings: measurements of a date, judged by the thresholds, and shown as a table."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gur_spark.config.monitoring import Levels, Monitor
from gur_spark.errors import ConfigError, nearest

FindingKind = Literal["snapshot", "feature", "embedding", "freshness"]
Status = Literal["ok", "warn", "alert"]

WORST_FIRST: Sequence[Status] = ("alert", "warn", "ok")
CAUSES_FIRST: Sequence[FindingKind] = ("freshness", "snapshot", "feature", "embedding")
"""Order of causes: a feed that stopped changes features, and features change embeddings."""

ABOVE_ITS_LEVEL = 3
"""Exit code of a run that succeeded and found drift."""

OTHER_SUBJECTS = ("users", "embedding", "snapshots", "embeddings")
"""Subjects of measurements that are neither columns nor logs."""

LINES = 20
"""Greatest number of features that a text lists."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured number."""

    kind: FindingKind
    subject: str
    """Name of a feature, a log, ..."""
    measure: str
    """Name of its threshold in the configuration."""
    value: float
    reference: str
    """Name of the reference that it was compared with."""


@dataclass(frozen=True, kw_only=True)
class Finding(Measurement):
    """A measurement with its status by the thresholds."""

    warn_above: float | None
    alert_above: float | None
    status: Status

    @property
    def severity(self) -> float:
        """Value over its highest level; above 1 it needs a look."""
        level = self.alert_above if self.alert_above is not None else self.warn_above
        return self.value / level if level else float("inf") if self.status != "ok" else 0.0


def judge(measured: Iterable[Measurement], settings: Monitor) -> list[Finding]:
    """Judge every measurement: worst first, then causes first. Ignored subjects have no levels and are ok."""
    silent = Levels(warn=None, alert=None)
    found = []
    for one in measured:
        levels = silent if one.subject in settings.ignore else getattr(settings.thresholds, one.measure)
        found.append(
            Finding(**vars(one), warn_above=levels.warn, alert_above=levels.alert, status=status(one.value, levels))
        )
    return sorted(found, key=_place)


def check_ignored(settings: Monitor, columns: Sequence[str], logs: Iterable[str]) -> None:
    """Refuse unknown names in ``monitor.ignore``: their subjects would be judged.

    Raises:
        ConfigError: the message has the nearest name.
    """
    others = [*(f"log {name}" for name in logs), *OTHER_SUBJECTS]
    for name in settings.ignore:
        if name not in (*columns, *others):
            raise ConfigError(
                f"monitor.ignore: '{name}' is not measured; expected a column of the snapshots or one of "
                f"{others}{nearest(name, [*columns, *others])}"
            )


def _place(finding: Finding) -> tuple[int, int, float, str, str]:
    first = WORST_FIRST.index(finding.status), CAUSES_FIRST.index(finding.kind)
    return (*first, -finding.severity, finding.subject, finding.measure)


def status(value: float, levels: Levels) -> Status:
    """Status by the highest level that the value is above."""
    if levels.alert is not None and value > levels.alert:
        return "alert"
    return "warn" if levels.warn is not None and value > levels.warn else "ok"


def worst(findings: Iterable[Finding]) -> Status:
    """The worst status among findings."""
    found = {finding.status for finding in findings}
    return next((status for status in WORST_FIRST if status in found), "ok")


def exit_code(worst_status: Status, warn_is_failure: bool) -> int:
    """Exit code of a run by its worst status."""
    above = worst_status == "alert" or (worst_status == "warn" and warn_is_failure)
    return ABOVE_ITS_LEVEL if above else 0


def summary(findings: Sequence[Finding]) -> str:
    """Counts in words, such as ``2 alerts, 1 warning, 301 ok``."""
    counts = Counter[str](finding.status for finding in findings)
    words = {"alert": "alert", "warn": "warning"}
    told = [f"{counts[s]} {word}{'' if counts[s] == 1 else 's'}" for s, word in words.items()]
    return ", ".join([*told, f"{counts['ok']} ok"])


def to_text(findings: Sequence[Finding]) -> str:
    """Table with one line per finding. Only the worst ``LINES`` features that are not ok are listed."""
    features = [finding for finding in findings if finding.kind == "feature"]
    left_out = [f for n, f in enumerate(features) if n >= LINES or f.status == "ok"]
    rows: list[tuple[str, ...]] = [("", "subject", "measure", "value", "warn", "alert", "against")]
    rows += [_cells(finding) for finding in findings if finding not in left_out]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if left_out:
        lines.append(f"further features: {summary(left_out)}; the worst of these: {left_out[0].subject}")
    return "\n".join(lines)


def _cells(finding: Finding) -> tuple[str, ...]:
    levels = (number(level) for level in (finding.warn_above, finding.alert_above))
    name = finding.status if finding.status == "ok" else finding.status.upper()
    return (name, finding.subject, finding.measure, number(finding.value), *levels, finding.reference)


def number(value: float | None) -> str:
    """A number with three digits; a dash for None."""
    return "-" if value is None else f"{value:.3g}"

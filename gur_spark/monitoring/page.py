"""Page of a monitored date: one HTML file without network access, with findings, pictures and all numbers."""

import re
from collections.abc import Iterable, Sequence
from html import escape

import pyarrow as pa

from gur_spark.monitoring.drift import Drift
from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.findings import Finding, number, summary, worst
from gur_spark.monitoring.plots import COLUMNS, Names, draw_distributions, draw_trends
from gur_spark.pages import document, picture

MOST_PANELS = 12

_WINDOW = re.compile(r"_(\d+d|lifetime)$")


def to_html(pipeline: str, drift: Drift, history: pa.Table, names: Names) -> str:
    """The page of a date.

    Args:
        history: rows of ``drift`` until the date.
        names: (field, id) -> category value.
    """
    loud = [finding for finding in drift.findings if finding.status != "ok"]
    of_embeddings = f", embeddings of {drift.model_version}" if drift.model_version else ""
    moved = _most_moved(drift)
    by_column = {distribution.column: distribution for distribution in drift.distributions}
    panels = [(by_column[name], _values(findings)) for name, findings in moved.items()]
    trends = draw_trends(history, [(name, findings[0].measure) for name, findings in moved.items()])
    parts = [
        f"<h1>{escape(pipeline)}, {drift.as_of} {_badge(worst(drift.findings))}</h1>",
        f"<p>{summary(drift.findings)}</p>",
        f'<p class="said">{drift.users:,} users{escape(of_embeddings)}; inputs against {escape(drift.reference)}</p>',
        "<h2>Findings that need a look</h2>",
        _table(loud) if loud else "<p>Nothing is above its level.</p>",
        "<h2>Trends</h2>",
        picture(trends, "trends over dates"),
        "<h2>Inputs that moved most</h2>",
        '<p class="said">Shares of users, or of their events. Each feature is shown in the window that moved most.</p>',
        picture(draw_distributions(panels, names), "distributions of inputs"),
        "<h2>All measurements</h2>",
        f"<details><summary>show</summary>{_table(drift.findings)}</details>",
    ]
    return document(f"{pipeline}, {drift.as_of}: drift", parts)


def shown_distributions(drift: Drift) -> list[Distribution]:
    """Distributions that the page shows."""
    moved = _most_moved(drift)
    return [distribution for distribution in drift.distributions if distribution.column in moved]


def _most_moved(drift: Drift) -> dict[str, list[Finding]]:
    """Findings of the features that a page shows, by column, worst first. A feature has its worst window only.

    All features that are not ok are shown, at least a row of panels and at most ``MOST_PANELS``.
    """
    found: dict[str, list[Finding]] = {}
    for finding in drift.findings:
        if finding.kind == "feature":
            found.setdefault(finding.subject, []).append(finding)
    worst_of: dict[str, str] = {}
    for name in found:
        worst_of.setdefault(_WINDOW.sub("", name), name)
    names = list(worst_of.values())
    loud = sum(found[name][0].status != "ok" for name in names)
    return {name: found[name] for name in names[: min(max(loud, COLUMNS), MOST_PANELS)]}


def _values(findings: Iterable[Finding]) -> str:
    ordered = sorted(findings, key=lambda f: f.measure != "psi")
    return ", ".join(f"{f.measure} {number(f.value)}" for f in ordered if f.value)


def _table(findings: Sequence[Finding]) -> str:
    heads = ("", "subject", "measure", "value", "warn", "alert", "against")
    head = "".join(f'<th class="n">{h}</th>' if h in ("value", "warn", "alert") else f"<th>{h}</th>" for h in heads)
    return f"<table><tr>{head}</tr>" + "".join(map(_row, findings)) + "</table>"


def _row(finding: Finding) -> str:
    numbers = (finding.value, finding.warn_above, finding.alert_above)
    cells = "".join(f'<td class="n">{number(value)}</td>' for value in numbers)
    names = f"<td>{escape(finding.subject)}</td><td>{finding.measure}</td>"
    return f"<tr><td>{_badge(finding.status)}</td>{names}{cells}<td>{escape(finding.reference)}</td></tr>"


def _badge(status: str) -> str:
    return f'<span class="s {status}">{status}</span>'

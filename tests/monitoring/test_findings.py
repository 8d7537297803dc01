"""Thresholds, the table as text, and the page."""

import math
import re
from base64 import b64decode
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.config.monitoring import Levels
from gur_spark.monitoring.drift import Drift
from gur_spark.monitoring.features import Distribution
from gur_spark.monitoring.findings import Finding, FindingKind, Measurement, judge, summary, to_text, worst
from gur_spark.monitoring.page import shown_distributions, to_html
from tests.monitoring.test_features import settings


def measured(subject: str, measure: str, value: float, kind: FindingKind = "feature") -> Measurement:
    return Measurement(kind=kind, subject=subject, measure=measure, value=value, reference="training of <one>")


def found(**changes: Any) -> list[Finding]:
    measurements = [
        measured("calm_7d", "psi", 0.1),
        measured("amount_7d", "psi", 0.5),
        measured("amount_30d", "psi", 0.3),
        measured("channel_counts_7d", "new_share", 0.03),
        measured("log web", "landing_days", math.inf, "freshness"),
        measured("snapshots", "snapshot_days", 0, "freshness"),
    ]
    return judge(measurements, settings(**changes))


def test_a_value_above_a_level_has_its_status_and_the_worst_comes_first() -> None:
    findings = found()
    assert [(f.subject, f.status) for f in findings] == [
        ("log web", "alert"),
        ("amount_7d", "alert"),
        ("amount_30d", "alert"),
        ("channel_counts_7d", "warn"),
        ("snapshots", "ok"),
        ("calm_7d", "ok"),
    ]
    assert (summary(findings), worst(findings), worst([])) == ("3 alerts, 1 warning, 2 ok", "alert", "ok")


def test_ignored_subjects_and_measures_without_a_level_are_ok() -> None:
    findings = found(ignore=["log web", "amount_7d", "amount_30d"])
    assert {f.subject for f in findings if f.status == "alert"} == set()
    assert {f.subject: f.alert_above for f in findings}["amount_7d"] is None
    off = settings().thresholds.model_copy(update={"psi": Levels(warn=None, alert=0.4)})
    assert [f.subject for f in found(thresholds=off) if f.status == "alert"] == ["log web", "amount_7d"]


def test_levels_that_cross_are_refused(make_config: Any) -> None:
    from gur_spark.errors import ConfigError

    with pytest.raises(ConfigError, match=r"monitor\.thresholds\.psi: expected warn at most alert"):
        make_config({"monitor": {"thresholds": {"psi": {"warn": 0.3}}}})
    with pytest.raises(ConfigError, match="did you mean 'psi'"):
        make_config({"monitor": {"thresholds": {"pssi": {"warn": 0.3, "alert": 1}}}})


def test_the_table_lists_features_that_are_not_ok_and_counts_the_others() -> None:
    assert to_text(found()) == (
        "       subject            measure        value  warn  alert  against\n"
        "ALERT  log web            landing_days   inf    1     3      training of <one>\n"
        "ALERT  amount_7d          psi            0.5    0.1   0.25   training of <one>\n"
        "ALERT  amount_30d         psi            0.3    0.1   0.25   training of <one>\n"
        "WARN   channel_counts_7d  new_share      0.03   0.02  0.05   training of <one>\n"
        "ok     snapshots          snapshot_days  0      0     6      training of <one>\n"
        "further features: 0 alerts, 0 warnings, 1 ok; the worst of these: calm_7d"
    )


def distribution(column: str) -> Distribution:
    if column.startswith("channel"):
        return Distribution(
            column, "channel", (1, 2, 3, "others"), np.array([1, 0, 5, 2.0]), np.array([3, 0, 1, 2.0]), 0, 0.2
        )
    return Distribution(column, None, ("≤ 1", "> 1"), np.array([4.0, 4]), np.array([1.0, 7]), 0, 0)


def test_the_page_is_one_file_with_the_findings_and_their_pictures() -> None:
    findings = found()
    columns = ["calm_7d", "amount_7d", "amount_30d", "channel_counts_7d"]
    drift = Drift(
        as_of=date(2024, 6, 15),
        users=1200,
        reference="training of <one>",
        model_version=None,
        vocabulary_version=1,
        findings=findings,
        distributions=[distribution(column) for column in columns],
    )
    # A feature in two windows is shown in the worse one.
    assert [d.column for d in shown_distributions(drift)] == ["calm_7d", "amount_7d", "channel_counts_7d"]
    days = [date(2024, 6, 8), date(2024, 6, 15)]
    history = pa.Table.from_pylist([vars(f) | {"as_of": day} for day in days for f in findings])
    page = to_html("shop & co", drift, history, {("channel", 3): "web"})
    assert "shop &amp; co, 2024-06-15" in page
    assert "training of &lt;one&gt;" in page
    assert "3 alerts, 1 warning, 2 ok" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    pictures = [b64decode(found).decode() for found in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    assert len(pictures) == 2
    # Texts are outlines; matplotlib keeps each as a comment.
    said = [set(re.findall(r"<!-- (.*?) -->", picture)) for picture in pictures]
    assert {"06-08", "06-15", "amount_7d psi", "log web landing_days"} - said[0] == {"log web landing_days"}
    assert {"amount_7d", "psi 0.5", "web", "unknown", "others", "none", "reference", "now"} <= said[1]

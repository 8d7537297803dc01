"""Figures of a monitoring page, by matplotlib: distributions now and before, and trends over dates."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa

from gur_spark.extras import report_library
from gur_spark.monitoring.features import Distribution
from gur_spark.schema import MISSING_ID, UNKNOWN_ID

BEFORE, NOW = "#9AA5B1", "#0072B2"
LEVELS = {"warn": "#E69F00", "alert": "#D55E00"}
# Colour-blind safe (Okabe and Ito 2008).
LINES = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

COLUMNS = 3
BARS = 12
"""Greatest number of bins that a panel shows."""

Names = Mapping[tuple[str, int], str]
"""Category values by (field, id)."""

Points = dict[str, list[tuple[date, float]]]
"""Name of a line -> its points."""


def draw_distributions(shown: Sequence[tuple[Distribution, str]], names: Names) -> Any:
    """One panel per feature with the shares of users before and now, and a line of text below its name."""
    rows = -(-len(shown) // COLUMNS)
    figure = _figure(2.6 * rows + 0.5)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for axis, (distribution, text) in zip(axes, shown, strict=False):
        _draw_distribution(axis, distribution, text, names)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=2, fontsize=9)
    return figure


def _draw_distribution(axis: Any, distribution: Distribution, text: str, names: Names) -> None:
    labels, before_B, now_B = _bars(distribution, names)
    places = np.arange(len(labels))
    axis.bar(places - 0.2, before_B, 0.4, color=BEFORE, label="reference")
    axis.bar(places + 0.2, now_B, 0.4, color=NOW, label="now")
    axis.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
    axis.set_title(f"{distribution.column}\n{text}", fontsize=8, loc="left")
    axis.yaxis.set_major_formatter(report_library("matplotlib.ticker").PercentFormatter(1))
    _plain(axis)


def _bars(distribution: Distribution, names: Names) -> tuple[list[str], Any, Any]:
    """Labels, and shares of all users before and now: in the bins that differ most, and without a value."""
    sides = []
    for side_B, null in (
        (distribution.before_B, distribution.before_null),
        (distribution.after_B, distribution.after_null),
    ):
        sides.append(side_B / max(side_B.sum(), 1e-12) * (1 - null))
    before_B, now_B = sides
    there = np.flatnonzero((before_B > 0) | (now_B > 0))
    if len(there) > BARS:
        there = np.sort(there[np.argsort(-np.abs(now_B - before_B)[there], kind="stable")[:BARS]])
    labels = [_name(distribution, int(bin), names) for bin in there]
    before_B, now_B = before_B[there], now_B[there]
    if distribution.before_null or distribution.after_null:
        labels.append("none")
        before_B, now_B = np.append(before_B, distribution.before_null), np.append(now_B, distribution.after_null)
    return labels, before_B, now_B


def _name(distribution: Distribution, place: int, names: Names) -> str:
    bin = distribution.bins[place]
    if isinstance(bin, str):
        return bin
    special = {UNKNOWN_ID: "unknown", MISSING_ID: "missing"}
    found = special.get(bin) or names.get((distribution.field or "", bin), f"id {bin}")
    return found if len(found) <= 14 else f"{found[:13]}…"


def draw_trends(rows: pa.Table, inputs: Sequence[tuple[str, str]]) -> Any:
    """Four panels over dates: numbers of alerts and warnings, and values of inputs, embeddings and freshness.

    Values are divided by their highest level, so that measures share an axis and the level is at 1.

    Args:
        rows: rows of ``drift``.
        inputs: features and measures that are shown.
    """
    figure = _figure(5.4)
    axes = figure.subplots(2, 2).flat
    listed = rows.to_pylist()
    _draw_counts(axes[0], listed)
    shown = list(inputs)[: len(LINES)]
    panels: Sequence[tuple[str, Callable[[Mapping[str, Any]], bool]]] = (
        ("inputs that moved most at this date", lambda row: (row["subject"], row["measure"]) in shown),
        ("embeddings, against the date before", lambda row: row["kind"] == "embedding"),
        ("freshness", lambda row: row["kind"] == "freshness"),
    )
    for axis, (title, wanted) in zip(axes[1:], panels, strict=True):
        _draw_lines(axis, title, _over_level([row for row in listed if wanted(row)]))
    dates = sorted({row["as_of"] for row in listed})
    for axis in axes:
        _dates(axis, dates)
    return figure


def _draw_counts(axis: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    dates = sorted({row["as_of"] for row in rows})
    counts = Counter((row["as_of"], row["status"]) for row in rows)
    width = _gap(dates) * 0.7
    below = np.zeros(len(dates))
    for status, word in (("alert", "alerts"), ("warn", "warnings")):
        heights = np.array([counts[day, status] for day in dates])
        axis.bar(dates, heights, width, bottom=below, color=LEVELS[status], label=word)
        below += heights
    axis.set_ylim(0, max(below.max(), 1) * 1.15)
    axis.yaxis.set_major_locator(report_library("matplotlib.ticker").MaxNLocator(integer=True))
    _titled(axis, "alerts and warnings")


def _over_level(rows: Sequence[Mapping[str, Any]]) -> Points:
    """Values over their level, by subject and measure, where there is a level."""
    points: Points = defaultdict(list)
    for row in rows:
        level = row["alert_above"] or row["warn_above"]
        if level and np.isfinite(row["value"]):
            points[_line_name(row)].append((row["as_of"], row["value"] / level))
    return points


def _line_name(row: Mapping[str, Any]) -> str:
    several = row["kind"] == "feature" or row["measure"] in ("event_days", "landing_days")
    return f"{row['subject']} {row['measure']}" if several else row["measure"]


def _draw_lines(axis: Any, title: str, points: Points) -> None:
    for number, (name, found) in enumerate(points.items()):
        # Each line is thinner than the one before, so that equal lines can be seen.
        width = max(3.2 - number * 0.45, 1)
        colour = LINES[number % len(LINES)]
        axis.plot(*zip(*found, strict=True), "o-", color=colour, linewidth=width, markersize=width + 1.5, label=name)
    axis.axhline(1, color=LEVELS["alert"], linewidth=1, linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("value over its alert level", fontsize=8)
    _titled(axis, title)


def _titled(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=9, loc="left")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1.02), borderaxespad=0.3)
    _plain(axis)


def _dates(axis: Any, dates: Sequence[date]) -> None:
    """Put at most six ticks at dates that were measured."""
    shown = dates[:: -(-len(dates) // 6)] if dates else []
    axis.set_xticks(shown, [f"{day:%m-%d}" for day in shown])
    if dates:
        around = max((dates[-1] - dates[0]) * 0.06, timedelta(days=ceil(_gap(dates) * 0.6)))
        axis.set_xlim(dates[0] - around, dates[-1] + around)


def _gap(dates: Sequence[date]) -> int:
    """Shortest time between two dates, in days."""
    return min(((later - earlier).days for earlier, later in pairwise(dates)), default=1)


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=7)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _figure(height: float) -> Any:
    # Without pyplot, which has global state and may want a display.
    figure = report_library("matplotlib.figure").Figure(figsize=(10.5, height), layout="constrained")
    report_library("matplotlib.backends.backend_svg").FigureCanvasSVG(figure)
    return figure

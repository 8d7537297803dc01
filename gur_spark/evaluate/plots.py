"""Pictures of a report, as matplotlib figures."""

import io
from collections.abc import Sequence
from typing import Any

from gur_spark.evaluate.figures import Difference, Score, TaskResult
from gur_spark.evaluate.report import Report
from gur_spark.extras import report_library

# Colour-blind safe (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73")

PANELS = 2
"""Tasks side by side."""


def draw(report: Report) -> bytes:
    """Draw ``draw_scores`` as a PNG."""
    picture = io.BytesIO()
    draw_scores(report).savefig(picture, format="png")
    return picture.getvalue()


def draw_scores(report: Report) -> Any:
    """Draw a panel per task: the first metric of both models on each representation, with its interval."""
    figure, axes = _panels(report, len(report.compared) * 0.28 + 1.3)
    for axis, task in zip(axes, report.tasks, strict=False):
        scores = [score for score in report.of(task.name) if score.metric == report.of(task.name)[0].metric]
        _draw_points(axis, scores, [score.representation for score in scores])
        if min(score.low for score in scores) < 0.55 and "AUC" in scores[0].metric:
            axis.axvline(0.5, color="0.5", linewidth=1, linestyle=":")
        axis.set_title(f"{task.name} ({task.test_users:,} test users)", fontsize=10)
        axis.set_xlabel(f"{scores[0].metric}, 95 % interval")
    figure.suptitle(f"{report.pipeline}, {report.when}: embeddings of {report.dimension} numbers per user", fontsize=11)
    return _finished(figure, axes)


def draw_segments(report: Report) -> Any:
    """Draw a panel per task: the embedding's difference to each baseline, in each segment."""
    figure, axes = _panels(report, 4.2)
    for axis, task in zip(axes, report.tasks, strict=False):
        found = [
            d
            for segment in task.segments
            for d in report.compared_with(task.name, segment)
            if d.representation == "embedding"
        ]
        _draw_points(axis, found, [f"{d.segment}: {d.against}" for d in found])
        axis.axvline(0, color="0.4", linewidth=1)
        axis.set_title(_sizes(task), fontsize=9)
        axis.set_xlabel(f"embedding less baseline, {found[0].metric}" if found else "not measured")
        axis.tick_params(axis="y", labelsize=7)
    return _finished(figure, axes)


def draw_label_shares(report: Report) -> Any:
    """Draw a panel per task: the first metric with fewer labels, a colour per representation and a style per model."""
    figure, axes = _panels(report, 3.4)
    for axis, task in zip(axes, report.tasks, strict=False):
        shares, colours = report.label_shares(task.name), dict(zip(report.curve(task.name), COLOURS, strict=False))
        metric = report.of(task.name)[0].metric
        lines: dict[tuple[str, str], list[Score]] = {}
        for score in (s for share in shares for s in report.of(task.name, label_share=share)):
            if score.representation in colours and score.metric == metric:
                lines.setdefault((score.representation, score.model), []).append(score)
        for (name, model), scores in lines.items():
            x, y = [100 * s.label_share for s in scores], [s.value for s in scores]
            trees = model == "LightGBM"
            label = f"{name}, {'LightGBM' if trees else 'linear'}"
            # Raw windows and PCA often lie on one another: the first one drawn shows at both sides of the next.
            width = 3.2 if name == next(iter(colours)) else 1.5
            axis.plot(x, y, "--s" if trees else "-o", markersize=4, linewidth=width, color=colours[name], label=label)
        axis.set_xscale("log")
        axis.set_xticks([100 * share for share in shares], [f"{100 * share:.3g} %" for share in shares])
        axis.minorticks_off()
        axis.set_title(task.name, fontsize=10)
        axis.set_xlabel("share of the train users' labels")
        axis.set_ylabel(metric)
    return _finished(figure, axes, columns=3)


def _sizes(task: TaskResult) -> str:
    return f"{task.name} (" + ", ".join(f"{name} {users:,}" for name, users in task.segments.items()) + ")"


def _panels(report: Report, height: float) -> tuple[Any, list[Any]]:
    rows = -(-len(report.tasks) // PANELS)
    columns = min(PANELS, len(report.tasks))
    # A figure made without pyplot needs no display and no global state, so jobs can run anywhere.
    figure = report_library("matplotlib.figure").Figure(
        figsize=(4.9 * columns + 1.4, height * rows + 0.7), dpi=150, layout="constrained"
    )
    report_library("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _draw_points(axis: Any, points: Sequence[Score | Difference], names: Sequence[str]) -> None:
    """Draw a row per name, and a colour per model."""
    rows = list(dict.fromkeys(names))
    models = list(dict.fromkeys(point.model for point in points))
    for model, colour, offset in zip(models, COLOURS, (-0.13, 0.13), strict=False):
        chosen = [(point, rows.index(name)) for point, name in zip(points, names, strict=True) if point.model == model]
        x, y = [p.value for p, _ in chosen], [row + offset for _, row in chosen]
        # With few resampled users, an interval may miss its point by a hair.
        error = [[max(p.value - p.low, 0) for p, _ in chosen], [max(p.high - p.value, 0) for p, _ in chosen]]
        linear = "linear (logistic or ridge regression)" if model != "LightGBM" else model
        axis.errorbar(x, y, xerr=error, fmt="o", markersize=4, capsize=3, color=colour, label=linear)
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _finished(figure: Any, axes: Sequence[Any], columns: int = 2) -> Any:
    for axis in axes:
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_visible(axis.has_data())
    labelled = max((axis.get_legend_handles_labels() for axis in axes), key=lambda found: len(found[0]))
    figure.legend(*labelled, frameon=False, loc="outside lower center", ncols=columns, fontsize=9)
    return figure

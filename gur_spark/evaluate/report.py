"""The result of an evaluation: as a table for people, as JSON for programs, as a picture."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gur_spark.evaluate import extra

# Colour-blind safe (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00")


@dataclass(frozen=True)
class TaskResult:
    """Whom a task was about."""

    name: str
    classes: dict[str, float]
    """Share of each class among the test users."""
    train_users: int
    test_users: int


@dataclass(frozen=True)
class Score:
    """One metric of one model on one representation, with its 95 % bootstrap interval."""

    task: str
    model: str
    metric: str
    representation: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """One representation's metric minus another's, over the same resamples."""

    task: str
    model: str
    metric: str
    representation: str
    against: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the embeddings of one model version at one date know."""

    pipeline: str
    model_version: str
    as_of: str
    users: int
    dimension: int
    tasks: Sequence[TaskResult]
    scores: Sequence[Score]
    differences: Sequence[Difference]
    notes: Sequence[str]
    """What a reader must know: a sample, labels of unknown users, ..."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    def to_text(self) -> str:
        """A table per task: a row per representation, a column per model and metric."""
        head = f"{self.pipeline}: embeddings of {self.as_of} by {self.model_version}"
        lines = [head, f"{self.users:,} users, dimension {self.dimension}; 95 % bootstrap intervals over test users"]
        lines += [f"note: {note}" for note in self.notes]
        for task in self.tasks:
            lines += ["", *self._table(task), "", *self._compared(task)]
        return "\n".join(lines) + "\n"

    def of(self, task: str) -> list[Score]:
        """The scores of a task."""
        return [score for score in self.scores if score.task == task]

    def _table(self, task: TaskResult) -> Iterator[str]:
        classes = ", ".join(f"{name} {share:.1%}" for name, share in task.classes.items())
        yield f"{task.name} ({classes}): {task.train_users:,} train users, {task.test_users:,} test users"
        scores = self.of(task.name)
        columns = list(dict.fromkeys((score.model, score.metric) for score in scores))
        cells = {(s.representation, s.model, s.metric): f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in scores}
        rows = list(dict.fromkeys(score.representation for score in scores))
        first, width = max(map(len, rows)), 20
        for part in (0, 1):
            yield " ".join([" " * first, *(column[part].ljust(width) for column in columns)]).rstrip()
        for name in rows:
            yield " ".join([name.ljust(first), *(cells[name, *column].ljust(width) for column in columns)]).rstrip()

    def _compared(self, task: TaskResult) -> Iterator[str]:
        for d in self.differences:
            if d.task == task.name:
                verdict = "higher" if d.low > 0 else "lower" if d.high < 0 else "no clear difference"
                yield (
                    f"{d.representation} - {d.against}, {d.model}, {d.metric}: "
                    f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {verdict}"
                )


def draw(report: Report) -> bytes:
    """A PNG: a panel per task with the AUC of both models on each representation, and its interval."""
    # Without a display and without pyplot's global state: jobs run anywhere.
    figure = extra("matplotlib.figure").Figure(
        figsize=(4.6 * len(report.tasks) + 1.4, 3.9), dpi=150, layout="constrained"
    )
    extra("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(report.tasks), sharey=True, squeeze=False)[0]
    for axis, task in zip(axes, report.tasks, strict=True):
        _draw_task(axis, task, report.of(task.name))
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(f"{report.pipeline}, {report.as_of}: what {report.dimension} numbers per user know", fontsize=11)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_task(axis: Any, task: TaskResult, scores: list[Score]) -> None:
    metric = scores[0].metric
    rows = list(dict.fromkeys(score.representation for score in scores))
    models = list(dict.fromkeys(score.model for score in scores))
    for model, colour, offset in zip(models, COLOURS, (-0.13, 0.13), strict=True):
        chosen = [score for score in scores if (score.model, score.metric) == (model, metric)]
        x = [score.value for score in chosen]
        y = [rows.index(score.representation) + offset for score in chosen]
        # An interval may miss its point by a hair when few users are resampled.
        error = [[max(s.value - s.low, 0) for s in chosen], [max(s.high - s.value, 0) for s in chosen]]
        axis.errorbar(x, y, xerr=error, fmt="o", markersize=5, capsize=3, color=colour, label=model)
    if min(score.low for score in scores if score.metric == metric) < 0.55:
        axis.axvline(0.5, color="0.5", linewidth=1, linestyle=":")
    axis.set_yticks(range(len(rows)), rows)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title(f"{task.name} ({task.test_users:,} test users)", fontsize=10)
    axis.set_xlabel(f"{metric}, 95 % interval")
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)

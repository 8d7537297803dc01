"""The result of an evaluation, as data with stable keys (JSON) and as a table for people.

``plots`` makes the pictures and ``page`` the page. ``FORMAT`` changes when a key changes its name or meaning.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from statistics import fmean
from typing import Any, Literal

FORMAT = 3

Verdict = Literal["win", "no clear difference", "loss"]


@dataclass(frozen=True)
class TaskResult:
    """Users that a task was about."""

    name: str
    classes: dict[str, float]
    """Share of each class among the test users; for a quantity, the shares of ``nothing`` and ``something``."""
    train_users: int
    """Train users of the first split of the first date."""
    test_users: int
    """Different test users, in all splits together."""
    segments: dict[str, int] = field(default_factory=dict)
    """Different test users of each segment."""


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
    segment: str = "all"
    by_seed: Sequence[float] = ()
    """The metric of each split, date by date; ``value`` is their mean."""


@dataclass(frozen=True)
class Difference:
    """The metric of one representation minus that of another, over the same resamples."""

    task: str
    model: str
    metric: str
    representation: str
    against: str
    value: float
    low: float
    high: float
    segment: str = "all"
    by_seed: Sequence[float] = ()

    @property
    def verdict(self) -> Verdict:
        """Verdict: whether the interval lies on one side of 0."""
        return "win" if self.low > 0 else "loss" if self.high < 0 else "no clear difference"


@dataclass(frozen=True)
class SharedSpace:
    """An older version with consumers that can read the evaluated one."""

    version: str
    how: str
    """``aligned``: the embeddings themselves are in its space; ``mapped``: ``score`` wrote the rows once more in it."""
    residual: float | None
    """0: the spaces are the same; 1: they have nothing in common."""
    users: int | None
    """Users that the motion or map was fitted on."""
    task: str | None = None
    consumer_loss: float | None = None
    """Share of the AUC that a model trained on the older version loses in the task, at the newest evaluated date. None
    where the older version has no embeddings there."""

    def __str__(self) -> str:
        residual = "" if self.residual is None else f", residual {self.residual:.3f}"
        users = "" if self.users is None else f" on {self.users:,} users"
        lost = "not measured: no task of classes, too few users, or it was not scored at the newest date evaluated"
        if self.consumer_loss is not None:
            lost = f"{self.consumer_loss:+.1%} of AUC in {self.task}"
        return f"{self.how} to {self.version}{residual}{users}; what its consumers lose: {lost}"


@dataclass(frozen=True)
class Decision:
    """The gates' findings when the version was to be published."""

    of: str
    """The version and date."""
    published: bool
    """Whether it was published, by force included."""
    gates: Sequence[Mapping[str, Any]]
    """``gate``, ``value``, ``bound`` and ``passed`` of each gate."""

    def __str__(self) -> str:
        failed = [f"{g['gate']} {g['value']:.3f}, expected {g['bound']}" for g in self.gates if not g["passed"]]
        said = f"{len(self.gates) - len(failed)} of {len(self.gates)} gates passed"
        return f"{self.of}: {'published' if self.published else 'refused'}, {said}" + "".join(
            f"; not {f}" for f in failed
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of the embeddings of one model version, at one date or at several."""

    pipeline: str
    model_version: str
    dates: Sequence[str]
    users: int
    """Different users, at all dates together."""
    dimension: int
    seeds: int = 1
    """Splits of each date's users."""
    compared: Mapping[str, str] = field(default_factory=dict)
    """Representation -> its description."""
    left_out: Sequence[str] = ()
    """Baselines that are missing, and why."""
    segments: str = ""
    """Meaning of the segments."""
    tasks: Sequence[TaskResult]
    scores: Sequence[Score]
    differences: Sequence[Difference]
    spaces: Sequence[SharedSpace] | None = None
    """None: not looked for."""
    decisions: Sequence[Decision] | None = None
    """Each time that gates were asked before it was published; None: not looked for."""
    notes: Sequence[str]
    """Remarks for the reader: a sample, labels of unknown users, and the like."""

    @property
    def when(self) -> str:
        """Describe the dates: the date, or the first and the last with their number."""
        return (
            self.dates[0] if len(self.dates) == 1 else f"{len(self.dates)} dates, {self.dates[0]} to {self.dates[-1]}"
        )

    def to_json(self) -> str:
        """Write all fields by name, ``format`` and the ``verdicts``; null where a number is not defined."""
        verdicts = [
            {"task": task.name, "model": d.model, "metric": d.metric, "against": d.against, "verdict": d.verdict}
            for task in self.tasks
            for d in self.headline(task.name)
        ]
        content = _plain({"format": FORMAT, **asdict(self), "verdicts": verdicts})
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """Write a table per task: a row per representation, a column per model and metric."""
        splits = f"means of {self.seeds} splits, " if self.seeds > 1 else ""
        if len(self.dates) > 1:
            splits = f"means over the dates{f' and {self.seeds} splits of each' if self.seeds > 1 else ''}, "
        lines = [
            f"{self.pipeline}: embeddings of {self.when} by {self.model_version}",
            f"{self.users:,} users, dimension {self.dimension}; {splits}95 % bootstrap intervals over test users",
            "a positive difference favours the embedding, or raw + embedding",
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"left out: {name}" for name in self.left_out]
        lines += [f"space: {space}" for space in self.spaces or ()]
        lines += [f"gates: {decision}" for decision in self.decisions or ()]
        for task in self.tasks:
            lines += ["", *self._table(task), "", *self._compared(task), *self._by_segment(task)]
        lines += ["", *(self.verdict_line(task.name) for task in self.tasks)]
        return "\n".join(lines) + "\n"

    def of(self, task: str, segment: str = "all") -> list[Score]:
        """Select the scores of a task."""
        return [score for score in self.scores if (score.task, score.segment) == (task, segment)]

    def compared_with(self, task: str, segment: str = "all") -> list[Difference]:
        """Select the differences of a task."""
        return [d for d in self.differences if (d.task, d.segment) == (task, segment)]

    def headline(self, task: str) -> list[Difference]:
        """Select the differences that verdicts go by: the task's first metric, the embedding against each baseline,
        both models."""
        metrics = [score.metric for score in self.of(task)][:1]
        return [d for d in self.compared_with(task) if d.representation == "embedding" and d.metric in metrics]

    def by_date(self, d: Difference) -> list[float]:
        """Average a difference over the splits of each date."""
        return [_mean(d.by_seed[n * self.seeds : (n + 1) * self.seeds]) for n in range(len(self.dates))]

    def by_split(self, d: Difference) -> list[float]:
        """Average a difference over the dates of each split."""
        return [_mean(d.by_seed[n :: self.seeds]) for n in range(self.seeds)]

    def verdict_line(self, task: str) -> str:
        """Write one line: the verdict of the models against each baseline, one word if they agree."""
        words: dict[str, dict[str, Verdict]] = {}
        for d in self.headline(task):
            words.setdefault(d.against, {})[d.model] = d.verdict
        parts = [
            f"{against}: {next(iter(said.values()))}"
            if len(set(said.values())) == 1
            else f"{against}: " + ", ".join(f"{verdict} ({model})" for model, verdict in said.items())
            for against, said in words.items()
        ]
        return f"verdict {task}, embedding against " + ("; ".join(parts) or "nothing that could be measured")

    def rows(self, task: str, segment: str = "all") -> tuple[list[tuple[str, str]], dict[str, list[Score | None]]]:
        """Arrange a task's scores as a table: the columns (model, metric), and for each representation its scores."""
        scores = self.of(task, segment)
        columns = list(dict.fromkeys((score.model, score.metric) for score in scores))
        cells = {(s.representation, s.model, s.metric): s for s in scores}
        names = list(dict.fromkeys(score.representation for score in scores))
        return columns, {name: [cells.get((name, *column)) for column in columns] for name in names}

    def _table(self, task: TaskResult) -> Iterator[str]:
        classes = ", ".join(f"{name} {share:.1%}" for name, share in task.classes.items())
        yield f"{task.name} ({classes}): {task.train_users:,} train users, {task.test_users:,} test users"
        columns, rows = self.rows(task.name)
        first, width = max(map(len, rows)), 20
        for part in (0, 1):
            yield " ".join([" " * first, *(column[part].ljust(width) for column in columns)]).rstrip()
        for name, scores in rows.items():
            yield " ".join([name.ljust(first), *(cell(score).ljust(width) for score in scores)]).rstrip()

    def _compared(self, task: TaskResult) -> Iterator[str]:
        for d in self.compared_with(task.name):
            yield (
                f"{d.representation} - {d.against}, {d.model}, {d.metric}: "
                f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {d.verdict}"
            )

    def _by_segment(self, task: TaskResult) -> Iterator[str]:
        for segment, users in task.segments.items():
            found = [d for d in self.compared_with(task.name, segment) if d.representation == "embedding"]
            told = "; ".join(f"{d.against} {d.value:+.3f} {d.verdict} ({d.model})" for d in found)
            yield f"{segment}, {users:,} test users: " + (told or "not measured: nobody, or all have the same answer")


def _plain(value: Any) -> Any:
    """Convert to strict JSON, where NaN does not exist: NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _mean(values: Sequence[float]) -> float:
    """Average the values that are defined."""
    defined = [value for value in values if isfinite(value)]
    return fmean(defined) if defined else float("nan")


def cell(score: Score | None) -> str:
    """Format a value and its interval."""
    return "" if score is None else f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"

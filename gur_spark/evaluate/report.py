"""The result of an evaluation, as data with stable keys (JSON).

``text`` makes the tables, ``plots`` the pictures and ``page`` the page. ``FORMAT`` changes when a key changes its name
or meaning.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from statistics import fmean
from typing import Any

from gur_spark.evaluate.advice import Advice
from gur_spark.evaluate.figures import Difference, Score, TaskResult, Verdict

FORMAT = 4


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
    widths: Mapping[str, int] = field(default_factory=dict)
    """Representation -> numbers per user, at the newest date."""
    left_out: Sequence[str] = ()
    """Baselines that are missing, and why."""
    segments: str = ""
    """Meaning of the segments."""
    smallest_difference: float = 0.005
    """Differences below it are neither wins nor losses."""
    advice: Sequence[Advice] = ()
    """Advice for each task: the representation to use."""
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
            {"task": d.task, "model": d.model, "metric": d.metric, "against": d.against, "verdict": self.verdict(d)}
            for task in self.tasks
            for d in self.headline(task.name)
        ]
        advice = [one.to_dict() for one in self.advice]
        content = _plain({"format": FORMAT, **asdict(self), "advice": advice, "verdicts": verdicts})
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def verdict(self, d: Difference) -> Verdict:
        """Judge a difference by the report's smallest relevant one."""
        return d.verdict(self.smallest_difference)

    def of(self, task: str, segment: str = "all", label_share: float = 1.0) -> list[Score]:
        """Select the scores of a task."""
        asked = (task, segment, label_share)
        return [score for score in self.scores if (score.task, score.segment, score.label_share) == asked]

    def compared_with(self, task: str, segment: str = "all", label_share: float = 1.0) -> list[Difference]:
        """Select the differences of a task."""
        asked = (task, segment, label_share)
        return [d for d in self.differences if (d.task, d.segment, d.label_share) == asked]

    def label_shares(self, task: str) -> list[float]:
        """List the shares of the labels that the models of a task were fitted on, in ascending order."""
        return sorted({score.label_share for score in self.scores if score.task == task})

    def curve(self, task: str) -> list[str]:
        """List the representations that were also measured with fewer labels."""
        few = dict.fromkeys(s.representation for s in self.scores if s.task == task and s.label_share < 1)
        return list(few)

    def headline(self, task: str) -> list[Difference]:
        """Select the differences that verdicts go by: the task's first metric, the embedding against each baseline,
        both models."""
        metrics = [score.metric for score in self.of(task)][:1]
        return [d for d in self.compared_with(task) if d.representation == "embedding" and d.metric in metrics]

    def matrix(self) -> tuple[list[str], dict[tuple[str, str], dict[str, Difference]]]:
        """Arrange the headline differences as a table: baselines, and by (task, model) the difference from each."""
        rows: dict[tuple[str, str], dict[str, Difference]] = {}
        for task in self.tasks:
            for d in self.headline(task.name):
                rows.setdefault((task.name, d.model), {})[d.against] = d
        return list(dict.fromkeys(name for found in rows.values() for name in found)), rows

    def label_table(self, task: str) -> tuple[list[float], dict[str, list[str]]]:
        """Arrange the first metric by the share of the labels: shares, and by representation and model its cells.

        There are no rows where only all labels were asked.
        """
        shares, names, full = self.label_shares(task), self.curve(task), self.of(task)
        found = {
            (s.representation, s.model, s.label_share): s
            for share in shares
            for s in self.of(task, label_share=share)
            if s.metric == full[0].metric
        }
        return shares, {
            f"{name}, {model}": [cell(found.get((name, model, share))) for share in shares]
            for model in dict.fromkeys(score.model for score in full)
            for name in names
        }

    def by_date(self, d: Difference) -> list[float]:
        """Average a difference over the splits of each date."""
        return [_mean(d.by_seed[n * self.seeds : (n + 1) * self.seeds]) for n in range(len(self.dates))]

    def by_split(self, d: Difference) -> list[float]:
        """Average a difference over the dates of each split."""
        return [_mean(d.by_seed[n :: self.seeds]) for n in range(self.seeds)]

    def rows(self, task: str, segment: str = "all") -> tuple[list[tuple[str, str]], dict[str, list[Score | None]]]:
        """Arrange a task's scores as a table: the columns (model, metric), and for each representation its scores."""
        scores = self.of(task, segment)
        columns = list(dict.fromkeys((score.model, score.metric) for score in scores))
        cells = {(s.representation, s.model, s.metric): s for s in scores}
        names = list(dict.fromkeys(score.representation for score in scores))
        return columns, {name: [cells.get((name, *column)) for column in columns] for name in names}


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

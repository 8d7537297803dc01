"""Probes: small models that are fitted on each representation, a linear one and boosted trees.

Users are split by a hash of their id. Each model is trained on one side and tested on the other; with several seeds, on
several such splits. ``pooling`` makes one figure of several splits.
"""

# N = users, K = classes

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Array, Ints, Mask, matrix
from gur_spark.batches.layout import Layout
from gur_spark.config.evaluation import Evaluation
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.advice import Advice
from gur_spark.evaluate.choice import advise
from gur_spark.evaluate.features import ABOUT, read_windows, represent
from gur_spark.evaluate.figures import (
    BOTH,
    COLES,
    EMBEDDING,
    HAND_MADE,
    PCA,
    RANDOM,
    RAW,
    Difference,
    Score,
    SplitUsers,
    TaskResult,
)
from gur_spark.evaluate.fitting import Fitter
from gur_spark.evaluate.pooling import DatedQuestion, Pool, Split, differences
from gur_spark.evaluate.questions import Question, question
from gur_spark.evaluate.report import Decision, Report, SharedSpace
from gur_spark.evaluate.segments import Segments, meaning, merged
from gur_spark.evaluate.small_models import Matrix
from gur_spark.splits import held_out

SALT = "evaluation"
"""Salt of the split; it differs from that of training."""

BASELINES = (PCA, RAW, RANDOM, HAND_MADE, COLES)
"""Baselines that the embedding is compared with, beside every further representation."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """Embedded users of one date with their answers and representations."""

    as_of: date
    answers: pa.Table
    """One row per user: ``user_id, embedding, events`` (of the longest window), and a column per task, null where not
    known. Texts are classes, numbers are quantities."""
    model_version: str
    """The version that embedded the users. Each date may have another one."""
    snapshot: str
    """Folder of the aggregate snapshot of the date, from which raw windows are read."""
    layout: Layout
    """Layout of that snapshot."""
    more: Mapping[str, Array] = field(default_factory=dict)
    """Further representations by name, rows in the order of ``answers``."""

    @property
    def users(self) -> pa.Array:
        return self.answers.column("user_id").combine_chunks()

    @property
    def tasks(self) -> list[str]:
        return [name for name in self.answers.column_names if name not in ("user_id", "embedding", "events")]


@dataclass
class Answered:
    """Predictions for all populations, and facts about what made them."""

    splits: dict[str, dict[float, list[Split]]]
    """Task -> share of the labels -> the splits of all dates."""
    segments: list[Segments] = field(default_factory=list)
    widths: dict[str, int] = field(default_factory=dict)
    """Representation -> numbers per user, at the newest date that has it."""
    stopped: dict[tuple[str, str], None] = field(default_factory=dict)
    """Pairs (task, representation) in which a logistic regression ran out of steps."""

    def add(self, population: Population, user_N: Ints, settings: Evaluation) -> None:
        """Fit and predict for every split of a date."""
        events_N = population.answers.column("events").to_numpy().astype(np.int64)
        segments = Segments.of(events_N, settings.segments)
        asked = [
            DatedQuestion(question(t, population.answers.column(t), settings.positive_of(t)), user_N, segments)
            for t in population.tasks
        ]
        embedding_NL = matrix(population.answers.column("embedding"))
        windows = read_windows(population.snapshot, population.layout, population.users)
        made = represent(windows, embedding_NL, seed=settings.seed, more=population.more)
        fitter = Fitter(settings.seed)
        for number in range(settings.seeds):
            train_N = ~held_out(population.users, settings.test_share, salt_of(number))
            for one in asked:
                found = fitter.splits(one, made, train_N, number, settings.label_shares)
                for share, split in found.items():
                    self.splits[one.question.name].setdefault(share, []).append(split)
        self.segments.append(segments)
        self.stopped |= fitter.stopped
        self.widths |= {name: x.shape[1] for name, x in made.items()}

    def remarks(self, shares: Sequence[float]) -> list[str]:
        """Remarks on models that ran out of steps, and on shares of the labels that some split could not do with."""
        told = "the logistic regression on {} did not converge in its steps; with more it may do better"
        few = [
            f"{task}: {100 * share:.3g} % of the labels are too few to learn from, and are left out"
            for task, found in self.splits.items()
            for share in shares
            if len(found.get(share, [])) < len(found[1.0])
        ]
        return [*(f"{task}: {told.format(name)}" for task, name in self.stopped), *few]

    @property
    def missing(self) -> set[str]:
        """Representations that some date does not have."""
        every = [split for splits in self.splits.values() for split in splits[1.0]]
        return {name for name in self.widths for split in every if name not in split.representations}


def evaluate(
    populations: Sequence[Population],
    settings: Evaluation,
    *,
    pipeline: str,
    notes: Sequence[str] = (),
    left_out: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
    spaces: Sequence[SharedSpace] | None = None,
    decisions: Sequence[Decision] | None = None,
) -> Report:
    """Probe embeddings beside other representations of the same users, at one date or at several.

    Each date has probes of its own, fitted on its train users. A user is on the same side of a split at all dates.

    Args:
        left_out: the missing baselines, and why they are missing.
        about: a description of each further representation.
        spaces, decisions: facts on the version; see ``lifecycle``.

    Raises:
        EvaluationError: there is no task, one cannot be probed, or a user is not in the snapshot.
    """
    answered, users = answer_all(populations, settings)
    dates = [population.as_of.isoformat() for population in populations]
    measured = [measure(by_share, settings, dates) for by_share in answered.splits.values()]
    known, missing = {**ABOUT, **(about or {})}, answered.missing
    compared = {name: told for name, told in known.items() if name in answered.widths and name not in missing}
    return Report(
        pipeline=pipeline,
        model_version=populations[-1].model_version,
        dates=dates,
        users=users,
        dimension=len(populations[0].answers.column("embedding")[0]),
        seeds=settings.seeds,
        compared=compared,
        widths={name: answered.widths[name] for name in compared},
        left_out=[*left_out, *(f"{name} (not there at every date)" for name in sorted(missing))],
        segments=meaning(answered.segments),
        smallest_difference=settings.smallest_difference,
        advice=[one.advice for one in measured],
        tasks=[one.result for one in measured],
        scores=[score for one in measured for score in one.scores],
        differences=[difference for one in measured for difference in one.differences],
        spaces=spaces,
        decisions=decisions,
        notes=[*notes, *answered.remarks(settings.label_shares)],
    )


def answer_all(populations: Sequence[Population], settings: Evaluation) -> tuple[Answered, int]:
    """Fit and predict at every date; return the predictions and the number of different users."""
    check_tasks(populations)
    numbers, users = numbered([population.users for population in populations])
    answered = Answered({name: {} for name in populations[0].tasks})
    for population, user_N in zip(populations, numbers, strict=True):
        with named_in_errors(population.as_of):
            answered.add(population, user_N, settings)
    return answered, users


def check_tasks(populations: Sequence[Population]) -> None:
    """Check that there is a task, and that all dates have the same ones.

    Raises:
        EvaluationError: there is none, or a date has others.
    """
    if not populations[0].tasks:
        raise EvaluationError("nothing to evaluate: expected something in evaluation.tasks or evaluation.labels")
    for population in populations:
        if population.tasks != populations[0].tasks:
            first = f"{populations[0].tasks} at {populations[0].as_of}"
            raise EvaluationError(f"the tasks are {first}, and {population.tasks} at {population.as_of}")


@contextmanager
def named_in_errors(as_of: date) -> Iterator[None]:
    """Name the date in errors."""
    try:
        yield
    except EvaluationError as error:
        raise EvaluationError(f"at {as_of}: {error}") from error


def numbered(users: Sequence[pa.Array]) -> tuple[list[Ints], int]:
    """Number the users, each alike in all arrays, and count the different ones."""
    everyone = pc.unique(pa.chunked_array(users))
    return [pc.index_in(some, everyone).to_numpy().astype(np.int64) for some in users], len(everyone)


def salt_of(number: int) -> str:
    """Salt of a split by its number. Split 0 is also that of reports with one seed."""
    return SALT if number == 0 else f"{SALT} {number}"


def probe(
    task: Question, representations: Mapping[str, Matrix], train_N: Mask, settings: Evaluation
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Fit both models on every representation of one split and measure them on the test users.

    Raises:
        EvaluationError: a class has no user to train on, or none to test on.
    """
    dated = DatedQuestion(task, np.arange(len(train_N)))
    by_share = Fitter(settings.seed).splits(dated, representations, train_N, 0, settings.label_shares)
    found = measure({share: [split] for share, split in by_share.items()}, settings, [""])
    return found.result, found.scores, found.differences


@dataclass(frozen=True)
class TaskFigures:
    """Everything that a report says on a task."""

    result: TaskResult
    advice: Advice
    scores: list[Score]
    differences: list[Difference]


def measure(by_share: Mapping[float, Sequence[Split]], settings: Evaluation, dates: Sequence[str]) -> TaskFigures:
    """Measure scores and differences over all test users, and the first metric also over those of each segment and
    with fewer labels.

    A share of the labels that some split does not have is left out.
    """
    pools = {
        share: Pool(splits, settings.bootstrap, settings.seed)
        for share, splits in by_share.items()
        if len(splits) == len(by_share[1.0])
    }
    pool = pools.pop(1.0)
    scores, found = pool.scores(len(pool.metrics))
    apart = list(differences(pool.name, found, compared_pairs(found)))
    sizes = {}
    for names, users in merged(lambda some: pool.tested(*some)).items() if pool.splits[0].dated.segments else ():
        segment = " + ".join(names)
        sizes[segment] = users
        some, found = pool.scores(1, *names)
        scores += some
        apart += differences(pool.name, found, compared_pairs(found), segment)
    for share, few in pools.items():
        some, found = few.scores(1)
        scores += some
        apart += differences(pool.name, found, compared_pairs(found), label_share=share)
    first = pool.splits[0]
    result = TaskResult(
        pool.name, pool.shares(), len(first.train), pool.tested(), sizes, first.dated.question.positive,
        [users_of(split, dates[n * len(dates) // len(pool.splits)]) for n, split in enumerate(pool.splits)],
    )  # fmt: skip
    advice = advise(pool, list(pools.values()), settings.seed, settings.smallest_difference)
    return TaskFigures(result, advice, scores, apart)


def users_of(split: Split, as_of: str) -> SplitUsers:
    """Count the users and positives of a split."""
    task = split.dated.question
    sides = (split.train, split.test)
    return SplitUsers(as_of, *(len(side) for side in sides), *(task.positives(side) for side in sides))


def compared_pairs(found: Mapping[tuple[str, str, str], Any]) -> list[tuple[str, str]]:
    """Pair the embedding with each baseline and further representation, and raw windows with and without it."""
    further = dict.fromkeys(name for _, _, name in found if name not in (*BASELINES, EMBEDDING, BOTH))
    return [*((EMBEDDING, other) for other in (*BASELINES, *further)), (BOTH, RAW)]

"""Probes: small models that are fitted on each representation, a linear one and boosted trees.

Users are split by a hash of their id. Each model is trained on one side and tested on the other; with several seeds, on
several such splits. ``pooling`` makes one figure of several splits.
"""

# N = users, K = classes

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gur_spark.arrays import Array, Ints, Mask, matrix
from gur_spark.batches.layout import Layout
from gur_spark.config.evaluation import Evaluation
from gur_spark.errors import EvaluationError
from gur_spark.evaluate.features import (
    ABOUT,
    BOTH,
    COLES,
    EMBEDDING,
    HAND_MADE,
    PCA,
    RANDOM,
    RAW,
    read_windows,
    represent,
)
from gur_spark.evaluate.pooling import DatedQuestion, Pool, Split, differences
from gur_spark.evaluate.questions import Classification, Question, question
from gur_spark.evaluate.report import Decision, Difference, Report, Score, SharedSpace, TaskResult
from gur_spark.evaluate.segments import SEGMENTS, Segments, meaning
from gur_spark.evaluate.small_models import (
    Matrix,
    boosted_regression,
    boosted_trees,
    logistic_regression,
    ridge_regression,
)
from gur_spark.extras import report_library
from gur_spark.splits import held_out

__all__ = ["Classification", "boosted_trees", "evaluate", "logistic_regression", "probe"]

log = logging.getLogger("gur_spark")

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
    if not populations[0].tasks:
        raise EvaluationError("nothing to evaluate: expected something in evaluation.tasks or evaluation.labels")
    for population in populations:
        if population.tasks != populations[0].tasks:
            first = f"{populations[0].tasks} at {populations[0].as_of}"
            raise EvaluationError(f"the tasks are {first}, and {population.tasks} at {population.as_of}")
    numbers, users = numbered([population.users for population in populations])
    splits: dict[str, list[Split]] = {name: [] for name in populations[0].tasks}
    compared: dict[str, None] = {}
    segments = []
    for population, user_N in zip(populations, numbers, strict=True):
        events_N = population.answers.column("events").to_numpy().astype(np.int64)
        segments.append(Segments.of(events_N, settings.segments))
        with named_in_errors(population.as_of):
            asked = [
                DatedQuestion(question(t, population.answers.column(t)), user_N, segments[-1]) for t in population.tasks
            ]
            for made, train_N, seed in represented(population, settings):
                compared |= dict.fromkeys(made)
                for one in asked:
                    splits[one.question.name].append(predict(one, made, train_N, seed))
    missing = {name for name in compared for split in next(iter(splits.values())) if name not in split.representations}
    measured = [
        measure(splits[name], train_users(splits[name][0]), settings.bootstrap, settings.seed, segmented=True)
        for name in splits
    ]
    known = {**ABOUT, **(about or {})}
    return Report(
        pipeline=pipeline,
        model_version=populations[-1].model_version,
        dates=[population.as_of.isoformat() for population in populations],
        users=users,
        dimension=len(populations[0].answers.column("embedding")[0]),
        seeds=settings.seeds,
        compared={name: told for name, told in known.items() if name in compared and name not in missing},
        left_out=[*left_out, *(f"{name} (not there at every date)" for name in sorted(missing))],
        segments=meaning(segments),
        tasks=[result for result, _, _ in measured],
        scores=[score for _, scores, _ in measured for score in scores],
        differences=[difference for _, _, found in measured for difference in found],
        spaces=spaces,
        decisions=decisions,
        notes=list(notes),
    )


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


def represented(population: Population, settings: Evaluation) -> Iterator[tuple[Mapping[str, Matrix], Mask, int]]:
    """Yield every representation, the train users and the seed of each split of a date."""
    embedding_NL = matrix(population.answers.column("embedding"))
    windows = read_windows(population.snapshot, population.layout, population.users)
    for number in range(settings.seeds):
        seed = settings.seed + number
        train_N = ~held_out(population.users, settings.test_share, salt_of(number))
        made = represent(windows, embedding_NL, train_N, seed=seed, more=population.more)
        yield made, train_N, seed


def salt_of(number: int) -> str:
    """Salt of a split by its number. Split 0 is also that of reports with one seed."""
    return SALT if number == 0 else f"{SALT} {number}"


def probe(
    task: Question, representations: Mapping[str, Matrix], train_N: Mask, *, bootstrap: int, seed: int
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Fit both models on every representation of one split and measure them on the test users.

    Raises:
        EvaluationError: a class has no user to train on, or none to test on.
    """
    split = predict(DatedQuestion(task, np.arange(len(train_N))), representations, train_N, seed)
    return measure([split], train_users(split), bootstrap, seed)


def predict(dated: DatedQuestion, representations: Mapping[str, Matrix], train_N: Mask, seed: int) -> Split:
    """Fit both models on the train users of each representation, and predict for the test users.

    Raises:
        EvaluationError: a side of the split does not have what the task needs.
    """
    task = dated.question
    train, test = np.flatnonzero(task.known_N & train_N), np.flatnonzero(task.known_N & ~train_N)
    task.check(train, test)
    linear, trees = models_of(task)

    def answers(model: str) -> dict[tuple[str, str], Array]:
        return {
            (model, name): fit(task, model, x[train], task.answer_N[train], x[test], seed)
            for name, x in representations.items()
        }

    # Each of the two models has a thread. Products are small, so the threads of one fit would wait for one another, and
    # the sums would depend on their number. LightGBM has globals, so it stays in this thread.
    with report_library("threadpoolctl").threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        by_linear = beside.submit(answers, linear)
        by_trees = answers(trees)
        said = by_linear.result() | by_trees
    log.info("%s: %s and %s on %d representations", task.name, linear, trees, len(representations))
    return Split(dated, test, said)


def train_users(split: Split) -> int:
    """Count the users that the probes of a split are fitted on."""
    return int(split.dated.question.known_N.sum()) - len(split.test)


def measure(
    splits: Sequence[Split], train_users: int, bootstrap: int, seed: int, segmented: bool = False
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Measure scores and differences over all test users, and the first metric also over those of each segment."""
    pool = Pool(splits, bootstrap, seed)
    scores, found = pool.scores(len(pool.metrics))
    apart = list(differences(pool.name, found, compared_pairs(found)))
    sizes = {}
    for segment in SEGMENTS if segmented else ():
        sizes[segment] = pool.tested(segment)
        some, found = pool.scores(1, segment)
        scores += some
        apart += differences(pool.name, found, compared_pairs(found), segment)
    return TaskResult(pool.name, pool.shares(), train_users, pool.tested(), sizes), scores, apart


def compared_pairs(found: Mapping[tuple[str, str, str], Any]) -> list[tuple[str, str]]:
    """Pair the embedding with each baseline and further representation, and raw windows with and without it."""
    further = dict.fromkeys(name for _, _, name in found if name not in (*BASELINES, EMBEDDING, BOTH))
    return [*((EMBEDDING, other) for other in (*BASELINES, *further)), (BOTH, RAW)]


def models_of(task: Question) -> tuple[str, str]:
    return ("logistic regression" if isinstance(task, Classification) else "ridge regression"), "LightGBM"


def fit(task: Question, model: str, x: Matrix, y: npt.NDArray[Any], x_test: Matrix, seed: int) -> Array:
    """Fit a model and predict probabilities (N, K), or values (N,), of the test users."""
    if isinstance(task, Classification):
        fitted = boosted_trees if model == "LightGBM" else logistic_regression
        return fitted(x, y, x_test, len(task.classes), seed)
    return (boosted_regression if model == "LightGBM" else ridge_regression)(x, y, x_test, seed)

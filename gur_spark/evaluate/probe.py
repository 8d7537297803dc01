"""Small models on each representation: what can be read off it, by a linear model and by boosted trees.

Users, not rows, are split by a hash of their id, so each model is trained on one side and tested on the other; with
several seeds, on several such splits. How scores of several splits become one is told in ``pooling``.
"""

# N = users, K = classes

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gur_spark.errors import EvaluationError
from gur_spark.evaluate import extra
from gur_spark.evaluate.features import (
    ABOUT,
    BOTH,
    COLES,
    EMBEDDING,
    HAND_MADE,
    PCA,
    RANDOM,
    RAW,
    Array,
    Mask,
    read_windows,
    represent,
    untrained,
)
from gur_spark.evaluate.pooling import Pool, Split, differences
from gur_spark.evaluate.report import Difference, Report, Score, TaskResult
from gur_spark.evaluate.segments import SEGMENTS, Segments
from gur_spark.evaluate.settings import Evaluation
from gur_spark.evaluate.small_models import (
    Matrix,
    boosted_regression,
    boosted_trees,
    logistic_regression,
    ridge_regression,
)
from gur_spark.evaluate.tasks import Question, Task, question
from gur_spark.splits import held_out
from gur_spark.versions.registry import LoadedModel

__all__ = ["Task", "boosted_trees", "evaluate", "logistic_regression", "probe"]

log = logging.getLogger("gur_spark")

SALT = "evaluation"
"""Of the split: independent of the split of the training."""

COMPARED = (*((EMBEDDING, other) for other in (PCA, RAW, RANDOM, HAND_MADE, COLES)), (BOTH, RAW))


def evaluate(
    answers: pa.Table,
    snapshot: str,
    model: LoadedModel,
    settings: Evaluation,
    *,
    pipeline: str,
    as_of: date,
    notes: Sequence[str] = (),
    more: Mapping[str, Array] | None = None,
    left_out: Sequence[str] = (),
) -> Report:
    """Probe embeddings beside what else can be made of the same users.

    Args:
        answers: one row per user: ``user_id, embedding, events`` (of the longest window), and a column per task, null
            where not known: texts are classes, numbers are quantities.
        snapshot: path of the snapshot that was embedded.
        more: further representations by name, rows in the order of ``answers``.
        left_out: which baselines are not there, and why.

    Raises:
        EvaluationError: there is no task, one cannot be probed, or a user is not in the snapshot.
    """
    users = answers.column("user_id").combine_chunks()
    names = [name for name in answers.column_names if name not in ("user_id", "embedding", "events")]
    tasks = [question(name, answers.column(name)) for name in names]
    if not tasks:
        raise EvaluationError("nothing to evaluate: expected something in evaluation.tasks or evaluation.labels")
    embedding_NL = np.stack(answers.column("embedding").to_numpy()).astype(np.float64)
    windows = read_windows(snapshot, model.layout, users, untrained(model, settings.seed))
    segments = Segments.of(answers.column("events").to_numpy().astype(np.int64), settings.segments)
    log_scale = model.model.dense_scale == "signed_log1p"
    splits: dict[str, list[Split]] = {task.name: [] for task in tasks}
    train_users: dict[str, int] = {}
    for number in range(settings.seeds):
        seed = settings.seed + number
        train_N = ~held_out(users, settings.test_share, salt_of(number))
        made = represent(windows, embedding_NL, train_N, log_scale=log_scale, seed=seed, more=more)
        for task in tasks:
            splits[task.name].append(ask(task, made, train_N, seed))
            train_users.setdefault(task.name, int((task.known_N & train_N).sum()))
    measured = [
        measure(task, splits[task.name], train_users[task.name], settings.bootstrap, settings.seed, segments)
        for task in tasks
    ]
    return Report(
        pipeline=pipeline,
        model_version=model.version,
        as_of=as_of.isoformat(),
        users=len(users),
        dimension=embedding_NL.shape[1],
        seeds=settings.seeds,
        compared={name: ABOUT[name] for name in ABOUT if name in made},
        left_out=list(left_out),
        segments=segments.meaning,
        tasks=[result for result, _, _ in measured],
        scores=[score for _, scores, _ in measured for score in scores],
        differences=[difference for _, _, found in measured for difference in found],
        notes=list(notes),
    )


def salt_of(number: int) -> str:
    """Of a split by its number; the first is that of reports of one seed."""
    return SALT if number == 0 else f"{SALT} {number}"


def probe(
    task: Question, representations: Mapping[str, Matrix], train_N: Mask, *, bootstrap: int, seed: int
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Fit both models on every representation of one split and measure them on the test users.

    Raises:
        EvaluationError: a class has no user to train on, or none to test on.
    """
    split = ask(task, representations, train_N, seed)
    return measure(task, [split], int((task.known_N & train_N).sum()), bootstrap, seed, None)


def ask(task: Question, representations: Mapping[str, Matrix], train_N: Mask, seed: int) -> Split:
    """What both models, fitted on the train users, say of the test users, for each representation.

    Raises:
        EvaluationError: a side of the split does not have what the task needs.
    """
    train, test = np.flatnonzero(task.known_N & train_N), np.flatnonzero(task.known_N & ~train_N)
    task.check(train, test)
    linear, trees = models_of(task)

    def answers(model: str) -> dict[tuple[str, str], Array]:
        return {
            (model, name): fit(task, model, x[train], task.answer_N[train], x[test], seed)
            for name, x in representations.items()
        }

    # The two models beside each other, in a thread each: products are small, so that the threads of one fit would wait
    # for one another, and its sums depend on how many there are. LightGBM has globals: it runs in this thread alone.
    with extra("threadpoolctl").threadpool_limits(1), ThreadPoolExecutor(1) as beside:
        by_linear = beside.submit(answers, linear)
        by_trees = answers(trees)
        said = by_linear.result() | by_trees
    log.info("%s: %s and %s on %d representations", task.name, linear, trees, len(representations))
    return Split(test, said)


def measure(
    task: Question, splits: Sequence[Split], train_users: int, bootstrap: int, seed: int, segments: Segments | None
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Scores and differences over all test users, and by the first metric over those of each segment."""
    pool = Pool(task, splits, bootstrap, seed)
    scores, found = pool.scores(task.metrics)
    apart = list(differences(task.name, found, COMPARED))
    sizes = {}
    for segment in SEGMENTS if segments else ():
        assert segments is not None
        members_N = segments.members(segment)
        sizes[segment] = int(members_N[pool.tested_U].sum())
        some, found = pool.scores(task.metrics[:1], segment, members_N)
        scores += some
        apart += differences(task.name, found, COMPARED, segment)
    result = TaskResult(task.name, task.shares(pool.tested_U), train_users, len(pool.tested_U), sizes)
    return result, scores, apart


def models_of(task: Question) -> tuple[str, str]:
    return ("logistic regression" if isinstance(task, Task) else "ridge regression"), "LightGBM"


def fit(task: Question, model: str, x: Matrix, y: npt.NDArray[Any], x_test: Matrix, seed: int) -> Array:
    """Probabilities (N, K), or values (N,), of the test users."""
    if isinstance(task, Task):
        fitted = boosted_trees if model == "LightGBM" else logistic_regression
        return fitted(x, y, x_test, len(task.classes), seed)
    return (boosted_regression if model == "LightGBM" else ridge_regression)(x, y, x_test, seed)

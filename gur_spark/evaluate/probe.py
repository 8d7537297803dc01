"""Small models on each representation: how much of an answer can be read from it.

Users are split once, by a hash of their id; logistic regression and LightGBM are fitted on the train users and
tested on the others. Intervals are those of a bootstrap over the test users, the same resamples for all
representations, so that their differences have intervals too.
"""

# N = users, R = resamples, K = classes

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from gur_spark.config import Evaluation
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import extra
from gur_spark.evaluate.bootstrap import Weights, accuracy, auc, average_precision, interval, macro_auc, resamples
from gur_spark.evaluate.features import (
    EMBEDDING,
    PCA,
    RAW,
    Array,
    Mask,
    Matrix,
    read_windows,
    represent,
    untrained,
)
from gur_spark.evaluate.report import Difference, Report, Score, TaskResult
from gur_spark.registry import LoadedModel
from gur_spark.splits import held_out

log = logging.getLogger("gur_spark")

SALT = "evaluation"
"""Of the split: independent of the split of the training."""

MOST_CLASSES = 50
TREES = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.5,
    "verbosity": -1,
    # The same trees on every run. Trees this small are done sooner by one thread than two threads can agree.
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS = 100

Metric = Callable[[npt.NDArray[np.int64], Array, Weights], Array]
"""(labels, probabilities (N, K), weights (R, N)) -> (R,)."""


@dataclass(frozen=True)
class Task:
    """A question about users."""

    name: str
    classes: tuple[str, ...]
    """Of two, the second is the positive one."""
    label_N: npt.NDArray[np.int64]
    """Index of the user's class; -1 where it is not known."""

    @classmethod
    def of(cls, name: str, labels: pa.ChunkedArray) -> "Task":
        """A task from text labels, null where not known; classes in alphabetical order.

        Raises:
            EvaluationError: fewer than two classes, or more than can be probed.
        """
        values = labels.to_pylist()
        found = sorted({value for value in values if value is not None})
        if len(found) < 2:
            raise EvaluationError(f"label '{name}': expected at least two classes among the users, got {found}")
        if len(found) > MOST_CLASSES:
            expected = f"at most {MOST_CLASSES} classes"
            raise EvaluationError(f"label '{name}': expected {expected}, got {len(found)}: is it a number?")
        index = {value: position for position, value in enumerate(found)}
        return cls(name, tuple(found), np.array([index.get(value, -1) for value in values], dtype=np.int64))


def evaluate(
    answers: pa.Table,
    snapshot: str,
    model: LoadedModel,
    settings: Evaluation,
    *,
    pipeline: str,
    as_of: date,
    notes: Sequence[str] = (),
) -> Report:
    """Probe embeddings beside what else can be made of the same snapshot.

    Args:
        answers: one row per user: ``user_id, embedding``, and a text column per label, null where not known.
        snapshot: path of the snapshot that was embedded.

    Raises:
        EvaluationError: there is no label, a label cannot be probed, or a user is not in the snapshot.
    """
    users = answers.column("user_id").combine_chunks()
    names = [name for name in answers.column_names if name not in ("user_id", "embedding")]
    tasks = [Task.of(name, answers.column(name)) for name in names]
    if not tasks:
        raise EvaluationError("nothing to evaluate: expected evaluation.churn or a table in evaluation.labels")
    embedding_NL = np.stack(answers.column("embedding").to_numpy()).astype(np.float64)
    windows = read_windows(snapshot, model.layout, users, untrained(model, settings.seed))
    train_N = ~held_out(users, settings.test_share, SALT)
    log_scale = model.model.dense_scale == "signed_log1p"
    representations = represent(windows, embedding_NL, train_N, log_scale=log_scale, seed=settings.seed)
    probed = [probe(task, representations, train_N, bootstrap=settings.bootstrap, seed=settings.seed) for task in tasks]
    return Report(
        pipeline=pipeline,
        model_version=model.version,
        as_of=as_of.isoformat(),
        users=len(users),
        dimension=embedding_NL.shape[1],
        tasks=[result for result, _, _ in probed],
        scores=[score for _, scores, _ in probed for score in scores],
        differences=[difference for _, _, differences in probed for difference in differences],
        notes=list(notes),
    )


def probe(
    task: Task, representations: Mapping[str, Matrix], train_N: Mask, *, bootstrap: int, seed: int
) -> tuple[TaskResult, list[Score], list[Difference]]:
    """Fit both models on every representation and measure them on the test users.

    Raises:
        EvaluationError: a class has no user to train on, or none to test on.
    """
    known_N = task.label_N >= 0
    train, test = np.flatnonzero(known_N & train_N), np.flatnonzero(known_N & ~train_N)
    _check_classes(task, train, test)
    weights = resamples(len(test), bootstrap, seed)
    scores: list[Score] = []
    differences: list[Difference] = []
    for model, fit in (("logistic regression", logistic_regression), ("LightGBM", boosted_trees)):
        drawn: dict[tuple[str, str], tuple[float, Array]] = {}
        for name, x in representations.items():
            probability_NK = fit(x[train], task.label_N[train], x[test], len(task.classes), seed)
            for metric, of in _metrics(task):
                point, values_R = _measure(of, task.label_N[test], probability_NK, weights)
                drawn[metric, name] = point, values_R
                scores.append(Score(task.name, model, metric, name, point, *interval(values_R)))
            log.info("%s, %s on %s: %s %.3f", task.name, model, name, scores[-2].metric, scores[-2].value)
        differences += _differences(task, model, drawn)
    shares = {name: float((task.label_N[test] == k).mean()) for k, name in enumerate(task.classes)}
    return TaskResult(task.name, shares, len(train), len(test)), scores, differences


def logistic_regression(x: Matrix, label: npt.NDArray[np.int64], x_test: Matrix, classes: int, seed: int) -> Array:
    """Class probabilities of the test users, (N, K), by ridge-penalised logistic regression."""
    model = extra("sklearn.linear_model").LogisticRegression(C=0.1, max_iter=5000)
    return np.asarray(model.fit(x, label).predict_proba(x_test))


def boosted_trees(x: Matrix, label: npt.NDArray[np.int64], x_test: Matrix, classes: int, seed: int) -> Array:
    """Class probabilities of the test users, (N, K), by gradient boosted trees."""
    lightgbm = extra("lightgbm")
    binary = classes == 2
    objective = {"objective": "binary"} if binary else {"objective": "multiclass", "num_class": classes}
    # LightGBM knows scipy's matrices, not yet its arrays.
    x, x_test = (sparse.csr_matrix(part) if sparse.issparse(part) else part for part in (x, x_test))
    trees = lightgbm.train({**TREES, **objective, "seed": seed}, lightgbm.Dataset(x, label), num_boost_round=ROUNDS)
    probability = np.asarray(trees.predict(x_test))
    return np.stack([1 - probability, probability], axis=1) if binary else probability


def _metrics(task: Task) -> tuple[tuple[str, Metric], tuple[str, Metric]]:
    if len(task.classes) > 2:
        return ("macro AUC", macro_auc), ("accuracy", accuracy)
    return (
        ("AUC", lambda label, p, weights: auc(label == 1, p[:, 1], weights)),
        ("average precision", lambda label, p, weights: average_precision(label == 1, p[:, 1], weights)),
    )


def _measure(metric: Metric, label: npt.NDArray[np.int64], p: Array, weights: Weights) -> tuple[float, Array]:
    """The metric over all test users, and over each resample."""
    everyone = np.ones((1, len(label)), dtype=np.uint16)
    return float(metric(label, p, everyone)[0]), metric(label, p, weights)


def _differences(task: Task, model: str, drawn: Mapping[tuple[str, str], tuple[float, Array]]) -> Iterator[Difference]:
    for metric, _ in _metrics(task):
        for against in (PCA, RAW):
            if {(metric, EMBEDDING), (metric, against)} <= drawn.keys():
                (ours, ours_R), (theirs, theirs_R) = drawn[metric, EMBEDDING], drawn[metric, against]
                yield Difference(
                    task.name, model, metric, EMBEDDING, against, ours - theirs, *interval(ours_R - theirs_R)
                )


def _check_classes(task: Task, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> None:
    for side, users in (("train", train), ("test", test)):
        present = set(task.label_N[users].tolist())
        absent = [name for k, name in enumerate(task.classes) if k not in present]
        if absent:
            raise EvaluationError(
                f"label '{task.name}': none of the {len(users)} {side} users is {absent}; "
                f"expected some of each of {list(task.classes)}"
            )

"""What consumers would lose by a switch to another version: two gates that ask a task with known answers.

A logistic regression is fitted on the embeddings of the published version and of the new one, at a date that both have
embeddings of and whose future is complete. *Downstream*: what the new version's answers lose beyond the paired
bootstrap interval, of all test users and of those of little and of much activity. *Consumer*: where the new rows claim
the published space (aligned, or mapped to it), what the published version's regression loses when asked with them.

Legend of array shapes: N = users, L = width of an embedding, K = classes, R = resamples.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config import Config
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import extra, labels
from gur_spark.evaluate.bootstrap import Array, auc, interval, macro_auc, resamples
from gur_spark.features.narrowing import event_rows
from gur_spark.horizon import check_complete, events_ahead
from gur_spark.monitoring.measures import FEWEST
from gur_spark.monitoring.samples import matrix
from gur_spark.serving.gates import Embeddings, Outcome
from gur_spark.splits import held_out
from gur_spark.tables import Tables

log = logging.getLogger("gur_spark")

SALT = "gates"


@dataclass(frozen=True)
class Answers:
    """Users whose answer is known, and what each side says of them."""

    users_N: npt.NDArray[Any]
    label_N: npt.NDArray[np.int64]
    events_N: Array
    now_NL: Array
    new_NL: Array
    claimed_NL: Array | None
    """New embeddings in the published space, where there are some."""


def outcomes(tables: Tables, config: Config, new: Embeddings, now: Embeddings, mapped: str) -> Iterator[Outcome]:
    """Both gates, where another version is to be published; ``mapped`` is what it is called in the published space.

    A gate that is on and cannot be asked is not passed.
    """
    gates = config.gates
    if gates.task is None or new.model_version == now.model_version:
        return
    found = _newest_date(tables, config, new.model_version, now.model_version)
    if found is None:
        asked = f"dates with embeddings of {new.model_version} and {now.model_version} to ask '{gates.task}' at"
        yield Outcome(asked, 0, "at least 1: score both at an earlier one, whose future is complete", False)
        return
    day, label = found
    answers = _answers(tables, config, label, day, new, now, mapped)
    test_N = held_out(answers.users_N, config.evaluation.test_share, SALT)
    log.info("publish: asks '%s' of %d users at %s", gates.task, len(test_N), day)
    if gates.max_downstream_loss is not None:
        for segment, lost in downstream_losses(answers, test_N, config.evaluation.bootstrap, config.evaluation.seed):
            passed = lost <= gates.max_downstream_loss
            what = f"AUC of {gates.task} lost beyond chance, {segment},"
            yield Outcome(what, lost, f"at most {gates.max_downstream_loss}", passed)
    if gates.max_consumer_loss is not None and answers.claimed_NL is not None:
        lost = consumer_loss(answers, test_N)
        bound = f"at most {gates.max_consumer_loss}"
        what = f"relative AUC of {gates.task} lost by who is not retrained"
        yield Outcome(what, lost, bound, lost <= gates.max_consumer_loss)


def downstream_losses(
    answers: Answers, test_N: npt.NDArray[np.bool_], bootstrap: int, seed: int
) -> Iterator[tuple[str, float]]:
    """By segment, the low end of the 95 % interval of the AUC that the new version loses; below 0 where it may gain.

    Both sides are asked of the same resamples of the test users. Segments are the users with up to, and with more than
    the median number of events; one with too few users, or without one of the classes, is not asked.
    """
    probability = {}
    for side, x_NL in (("now", answers.now_NL), ("new", answers.new_NL)):
        probability[side] = _probe(x_NL, answers.label_N, test_N)(x_NL[test_N])
    label_N, events_N = answers.label_N[test_N], answers.events_N[test_N]
    middle = np.median(events_N)
    for name, in_N in (
        ("all users", np.ones(len(label_N), bool)),
        (f"up to {middle:g} events", events_N <= middle),
        (f"more than {middle:g} events", events_N > middle),
    ):
        classes = len(np.unique(label_N[in_N]))
        if name != "all users" and (in_N.sum() < FEWEST or classes < len(np.unique(label_N))):
            log.info("publish: %d test users with %s are too few to ask", in_N.sum(), name)
            continue
        weights = resamples(int(in_N.sum()), bootstrap, seed)
        now_R, new_R = (_auc(label_N[in_N], probability[side][in_N], weights) for side in ("now", "new"))
        yield name, interval(now_R - new_R)[0]


def consumer_loss(answers: Answers, test_N: npt.NDArray[np.bool_]) -> float:
    """``1 - AUC with the new embeddings / AUC with its own`` of a regression fitted on the published ones."""
    assert answers.claimed_NL is not None
    asked = _probe(answers.now_NL, answers.label_N, test_N)
    label_N = answers.label_N[test_N]
    everyone = np.ones((1, len(label_N)), dtype=np.uint16)
    own, theirs = (
        float(_auc(label_N, asked(x_NL[test_N]), everyone)[0]) for x_NL in (answers.now_NL, answers.claimed_NL)
    )
    return 1 - theirs / own


def _probe(x_NL: Array, label_N: npt.NDArray[np.int64], test_N: npt.NDArray[np.bool_]) -> Any:
    """Class probabilities (N, K) of embeddings, by a regression fitted on the users that are not tested."""
    scaler = extra("sklearn.preprocessing").StandardScaler()
    regression = extra("sklearn.linear_model").LogisticRegression(C=0.1, max_iter=5000)
    pipeline = extra("sklearn.pipeline").make_pipeline(scaler, regression)
    return pipeline.fit(x_NL[~test_N], label_N[~test_N]).predict_proba


def _auc(label_N: npt.NDArray[np.int64], probability_NK: Array, weights: Any) -> Array:
    if probability_NK.shape[1] == 2:
        return auc(label_N == 1, probability_NK[:, 1], weights)
    return macro_auc(label_N, probability_NK, weights)


def _newest_date(tables: Tables, config: Config, new: str, now: str) -> tuple[date, DataFrame] | None:
    """The newest date that both versions have embeddings of and the task has answers for, and those answers."""
    keys = tables.read("embeddings").where(F.col("model_version").isin(new, now))
    rows = keys.select("model_version", "as_of").distinct().collect()
    dates = [{row["as_of"] for row in rows if row["model_version"] == version} for version in (new, now)]
    first = max((_seen_until(tables, version) for version in (new, now)), default=date.min)
    for day in sorted((day for day in dates[0] & dates[1] if day >= first), reverse=True):
        try:
            return day, _label(tables, config, now, day)
        except EvaluationError as error:
            log.info("publish: '%s' is not asked at %s: %s", config.gates.task, day, error)
    return None


def _seen_until(tables: Tables, version: str) -> date:
    """The first date whose events a version was not trained to expect."""
    row = tables.read("models").where(F.col("model_version") == version).select("path").first()
    card = storage.join(row["path"], "card.json") if row else ""
    seen = json.loads(storage.read_text(card)).get("seen_until") if card and storage.exists(card) else None
    return date.fromisoformat(seen) if seen else date.min


def _label(tables: Tables, config: Config, version: str, day: date) -> DataFrame:
    """``user_id, label``.

    Raises:
        EvaluationError: the date's future is not complete, or the label table cannot be read.
    """
    settings, name = config.evaluation, config.gates.task
    for table in settings.labels:
        if table.name == name:
            return labels.read_label(tables.spark, table, config.fields.user_id.type).withColumnRenamed(name, "label")
    task = next(task for task in settings.tasks if task.name == name)
    events = event_rows(tables.read("events", made_by="ingest"), config.manifest())
    check_complete(events, config, [day], settings.horizon_days, EvaluationError)
    ahead = events_ahead(events, config, day, settings.horizon_days)
    rows = tables.read("embeddings").where((F.col("model_version") == version) & (F.col("as_of") == F.lit(day)))
    return labels.answer(task, rows, ahead, config)[0].withColumnRenamed(task.name, "label")


def _answers(
    tables: Tables, config: Config, label: DataFrame, day: date, new: Embeddings, now: Embeddings, mapped: str
) -> Answers:
    """Of the users that all sides have, or of a sample by a hash of their ids."""
    at_date = tables.read("embeddings").where(F.col("as_of") == F.lit(day))
    claimed = mapped if at_date.where(F.col("model_version") == mapped).head(1) else None
    if claimed is None and new.space == now.space:
        claimed = new.model_version
    both = label.where(F.col("label").isNotNull())
    for name, version in (("now", now.model_version), ("new", new.model_version), ("claimed", claimed)):
        if version:
            rows = at_date.where(F.col("model_version") == version)
            more = [F.col("events")] if name == "now" else []
            both = both.join(rows.select("user_id", F.col("embedding").alias(name), *more), "user_id")
    sampled = both.orderBy(F.xxhash64(F.lit(config.evaluation.seed), F.col("user_id")), "user_id")
    table: pa.Table = sampled.limit(config.evaluation.max_users).toArrow()
    _, label_N = np.unique(table["label"].to_numpy(), return_inverse=True)
    return Answers(
        users_N=table["user_id"].to_numpy(),
        label_N=label_N,
        events_N=table["events"].to_numpy().astype(np.float64),
        now_NL=matrix(table["now"]),
        new_NL=matrix(table["new"]),
        claimed_NL=matrix(table["claimed"]) if claimed else None,
    )

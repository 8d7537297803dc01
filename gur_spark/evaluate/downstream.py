"""Gates that measure the loss of consumers when another version is published, by a task with known answers.

A logistic regression is fitted on embeddings of the published version and of the new one, at a date with embeddings of
both and a complete future. The *downstream* gate bounds the AUC that the new version loses beyond the paired bootstrap
interval: over all test users, and over cold, light and heavy ones. The *consumer* gate applies where the new rows claim
the published space (they are aligned or mapped to it). It bounds the AUC that the published version's regression loses
on the new rows.

Legend of array shapes: N = users, L = width of an embedding, K = classes, R = resamples.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.arrays import Array, Ints, Mask, matrix
from gur_spark.config.evaluation import Evaluation
from gur_spark.config.pipeline import Config
from gur_spark.errors import EvaluationError, ModelError
from gur_spark.evaluate import label_tables, labels
from gur_spark.evaluate.questions import Classification
from gur_spark.evaluate.segments import SEGMENTS, Segments
from gur_spark.evaluate.small_models import logistic_regression
from gur_spark.extras import report_library
from gur_spark.features.spark.selection import event_rows
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.gates import Outcome, VersionRows
from gur_spark.registry.known import seen_until
from gur_spark.registry.names import VersionName
from gur_spark.snapshots.horizon import check_complete, events_ahead
from gur_spark.spaces.asked import asked_spaces
from gur_spark.splits import held_out
from gur_spark.statistics.bootstrap import interval, resamples
from gur_spark.statistics.measures import FEWEST
from gur_spark.tables.delta import Tables

log = logging.getLogger("gur_spark")

SALT = "gates"


@dataclass(frozen=True)
class Answers:
    """Users with a known answer, and their embeddings by each version."""

    users_N: npt.NDArray[Any]
    task: Classification
    events_N: Ints
    now_NL: Array
    new_NL: Array
    claimed_NL: Array | None
    """New embeddings in the published space; None where the new version does not claim that space."""


def outcomes(tables: Tables, config: Config, new: VersionRows, now: VersionRows) -> Iterator[Outcome]:
    """Yield the outcomes of both gates, if the new rows are of another version than the published ones.

    A gate that is switched on and cannot be asked is not passed.
    """
    task = config.gates.task
    if task is None or new.model_version == now.model_version:
        return
    try:
        yield from _asked(tables, config, new, now)
    except (EvaluationError, ModelError) as error:
        yield Outcome(f"answers to '{task}'", 0, f"some: {error}", False)


def _asked(tables: Tables, config: Config, new: VersionRows, now: VersionRows) -> Iterator[Outcome]:
    """Yield the outcomes of both gates.

    Raises:
        EvaluationError: the task cannot be asked.
    """
    gates, settings = config.gates, config.evaluation
    found = _newest_date(tables, config, new.model_version, now.model_version)
    if found is None:
        asked = f"dates with embeddings of {new.model_version} and {now.model_version} to ask '{gates.task}' at"
        yield Outcome(asked, 0, "at least 1: score both at an earlier one, whose future is complete", False)
        return
    day, label = found
    answers = _answers(tables, config, label, day, new, now)
    if len(answers.users_N) < FEWEST:
        what = f"users of {day} to ask '{gates.task}' of"
        yield Outcome(what, len(answers.users_N), f"at least {FEWEST}", False)
        return
    test_N = held_out(answers.users_N, settings.test_share, SALT)
    answers.task.check(np.flatnonzero(~test_N), np.flatnonzero(test_N))
    log.info("publish: asks '%s' of %d users at %s", gates.task, len(test_N), day)
    if gates.max_downstream_loss is not None:
        for segment, lost in downstream_losses(answers, test_N, settings):
            passed = lost <= gates.max_downstream_loss
            what = f"AUC of {gates.task} lost beyond chance, {segment},"
            yield Outcome(what, lost, f"at most {gates.max_downstream_loss}", passed)
    if gates.max_consumer_loss is None:
        return
    if answers.claimed_NL is not None:
        lost = consumer_loss(answers, test_N, settings.seed)
        what = f"relative AUC of {gates.task} lost by consumers that are not retrained"
        yield Outcome(what, lost, f"at most {gates.max_consumer_loss}", lost <= gates.max_consumer_loss)
    elif now.model_version in asked_spaces(tables, config.scoring, new.model_version):
        mapped = VersionName.parse(new.model_version).mapped_to(now.model_version)
        what = f"rows of {mapped} at {day} for consumers that are not retrained"
        yield Outcome(what, 0, f"at least 1: score {new.model_version} at that date with scoring.in_space_of", False)


def consumer_loss_at(
    tables: Tables, settings: Evaluation, task: str, label: DataFrame, day: date, claimed: str, old: str
) -> float | None:
    """Measure the loss of a consumer that was trained on an older version and is not retrained.

    Returns ``1 - AUC with the claimed rows / AUC with its own``, or None where fewer users than ``FEWEST`` have both
    rows.

    Args:
        label: ``user_id, label``, classes as text.
        claimed: the model_version of rows in the older version's space: a newer version that was aligned, or mapped
            rows.

    Raises:
        EvaluationError: the users have one class, or a side of the split does not have all classes.
    """
    found = _joined(tables, settings, label, day, {"now": old, "claimed": claimed})
    if len(found) < FEWEST:
        return None
    now_NL, claimed_NL = matrix(found["now"]), matrix(found["claimed"])
    asked = Classification.of(task, found["label"])
    answers = Answers(found["user_id"].to_numpy(), asked, found["events"].to_numpy(), now_NL, claimed_NL, claimed_NL)
    test_N = held_out(answers.users_N, settings.test_share, SALT)
    answers.task.check(np.flatnonzero(~test_N), np.flatnonzero(test_N))
    return consumer_loss(answers, test_N, settings.seed)


def downstream_losses(answers: Answers, test_N: Mask, settings: Evaluation) -> Iterator[tuple[str, float]]:
    """Yield, by segment, the low end of the 95 % interval of the AUC that the new version loses.

    It is below 0 where the new version may gain. Both versions are asked about the same resamples of the test users.
    The segments are those of reports. A segment with fewer than ``FEWEST`` test users, or without one of the classes,
    is skipped.
    """
    sides = [_said(answers, x_NL, test_N, settings.seed, x_NL)[0] for x_NL in (answers.now_NL, answers.new_NL)]
    label_N = answers.task.label_N[test_N]
    segments = Segments.of(answers.events_N, settings.segments)
    _, auc = answers.task.metrics[0]
    everyone = np.ones(len(label_N), bool)
    for name, in_N in (("all users", everyone), *((name, segments.members(name)[test_N]) for name in SEGMENTS)):
        classes = len(np.unique(label_N[in_N]))
        if in_N is not everyone and (in_N.sum() < FEWEST or classes < len(answers.task.classes)):
            log.info("publish: %d %s test users are too few to ask", in_N.sum(), name)
            continue
        weights = resamples(int(in_N.sum()), settings.bootstrap, settings.seed)
        now_R, new_R = (auc(label_N[in_N], said_NK[in_N], weights) for said_NK in sides)
        yield name, interval(now_R - new_R)[0]


def consumer_loss(answers: Answers, test_N: Mask, seed: int) -> float:
    """Compute ``1 - AUC with the new embeddings / AUC with its own`` for a regression fitted on the published ones."""
    assert answers.claimed_NL is not None
    label_N = answers.task.label_N[test_N]
    once = np.ones((1, len(label_N)), dtype=np.uint16)
    _, auc = answers.task.metrics[0]
    both = _said(answers, answers.now_NL, test_N, seed, answers.now_NL, answers.claimed_NL)
    own, theirs = (float(auc(label_N, said_NK, once)[0]) for said_NK in both)
    return 1 - theirs / own


def _said(answers: Answers, fitted_NL: Array, test_N: Mask, seed: int, *asked_NL: Array) -> list[Array]:
    """Predict class probabilities (N, K) of the test users by a regression fitted on the embeddings of the others."""
    scaler = report_library("sklearn.preprocessing").StandardScaler().fit(fitted_NL[~test_N])
    rows = np.concatenate([scaler.transform(x_NL[test_N]) for x_NL in asked_NL])
    task = answers.task
    label_N = task.label_N[~test_N]
    said = logistic_regression(scaler.transform(fitted_NL[~test_N]), label_N, rows, len(task.classes), seed)
    return np.split(said, len(asked_NL))


def _newest_date(tables: Tables, config: Config, new: str, now: str) -> tuple[date, DataFrame] | None:
    """Find the newest date with embeddings of both versions and answers to the task; return it with the answers.

    Raises:
        EvaluationError: the label table cannot be read, or it is not known until when a version saw events.
    """
    common = set(EMBEDDINGS.dates(tables, new)).intersection(EMBEDDINGS.dates(tables, now))
    first = max(seen_until(tables, version) for version in (new, now))
    days = sorted((day for day in common if day >= first), reverse=True)
    settings, name = config.evaluation, config.gates.task
    for table in settings.labels:
        if table.name == name:
            kind = config.fields.user_id.type
            if table.date_column and days:
                # Answers come after the date that they are about, so the newest dates have none yet.
                newest = label_tables.newest_date(tables.spark, table, kind)
                days = [day for day in days if newest and day <= newest]
            if not days:
                return None
            label = label_tables.read_label(tables.spark, table, kind, days[0])
            return days[0], label.withColumnRenamed(name, "label")
    events = event_rows(tables.read("events", made_by="ingest"), config.manifest())
    for day in days:
        try:
            check_complete(events, config, [day], settings.horizon_days, EvaluationError)
        except EvaluationError as error:
            log.info("publish: '%s' is not asked at %s: %s", name, day, error)
            continue
        users = tables.read("embeddings").where((F.col("model_version") == now) & (F.col("as_of") == F.lit(day)))
        ahead = events_ahead(events, day, settings.horizon_days, config.aggregates.delay_days)
        task = next(task for task in settings.tasks if task.name == name)
        return day, labels.answer(task, users, ahead, config.manifest())[0].withColumnRenamed(task.name, "label")
    return None


def _joined(tables: Tables, settings: Evaluation, label: DataFrame, day: date, sides: Mapping[str, str]) -> pa.Table:
    """Collect ``user_id, label, events`` and one embedding per side, of the users that all sides have.

    Beyond ``evaluation.max_users`` they are a sample by a hash of the user id.
    """
    at_date = tables.read("embeddings").where(F.col("as_of") == F.lit(day))
    both = label.where(F.col("label").isNotNull())
    for name, version in sides.items():
        rows = at_date.where(F.col("model_version") == version)
        more = [F.col("events")] if name == "now" else []
        both = both.join(rows.select("user_id", F.col("embedding").alias(name), *more), "user_id")
    sampled = both.orderBy(F.xxhash64(F.lit(settings.seed), F.col("user_id")), "user_id")
    table: pa.Table = sampled.limit(settings.max_users).toArrow()
    return table


def _answers(
    tables: Tables, config: Config, label: DataFrame, day: date, new: VersionRows, now: VersionRows
) -> Answers:
    """Collect the answers and embeddings of the users that both versions have, or of a sample by a hash of their ids.

    Raises:
        EvaluationError: the users have one class.
    """
    mapped = str(VersionName.parse(new.model_version).mapped_to(now.model_version))
    at_date = tables.read("embeddings").where(F.col("as_of") == F.lit(day))
    claimed = mapped if at_date.where(F.col("model_version") == mapped).head(1) else None
    if claimed is None and new.space == now.space:
        claimed = new.model_version
    sides = {"now": now.model_version, "new": new.model_version} | ({"claimed": claimed} if claimed else {})
    table = _joined(tables, config.evaluation, label, day, sides)
    return Answers(
        users_N=table["user_id"].to_numpy(),
        task=Classification.of(str(config.gates.task), table["label"]),
        events_N=table["events"].to_numpy().astype(np.int64),
        now_NL=matrix(table["now"]),
        new_NL=matrix(table["new"]),
        claimed_NL=matrix(table["claimed"]) if claimed else None,
    )

"""Example of a consumer: a churn model that knows the space of the embeddings that it was trained on.

A published version that was aligned to the one before shares its space, so the model scores the new rows. Any other
version has other axes, on which the old weights have no meaning, so the model is trained again or scoring is refused.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.arrays import Array, Mask, matrix
from gur_spark.config.pipeline import Config
from gur_spark.consumers.point_in_time import training_set
from gur_spark.errors import ConsumerError, EvaluationError, TableError
from gur_spark.evaluate import labels
from gur_spark.extras import import_extra
from gur_spark.features.spark.selection import event_rows
from gur_spark.outputs.embeddings import EMBEDDINGS, read_embeddings
from gur_spark.registry.known import seen_until
from gur_spark.registry.published import published
from gur_spark.snapshots.horizon import check_complete, events_ahead
from gur_spark.spaces.axes import space_of
from gur_spark.splits import held_out
from gur_spark.statistics.measures import auc
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.runs import Account

log = logging.getLogger("gur_spark")

OnSwitch = Literal["retrain", "refuse"]
"""Action when the published version is in another space than the model."""

SALT = "churn example"


class ChurnModel(BaseModel):
    """Logistic regression on embeddings, ``1 / (1 + exp(-(x . weights + bias)))``, stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trained_on: str
    """Version of the embeddings that it was trained on."""
    space: str
    """Version in whose space these embeddings are."""
    label_dates: tuple[str, ...]
    horizon_days: int
    rows: int
    """Number of (user, date) pairs that it was trained on."""
    auc: float | None
    """AUC on users that it was not trained on; None where all or none of them churned."""
    weights: tuple[float, ...]
    bias: float


def predict_churn(
    tables: Tables,
    config: Config,
    *,
    as_of: date | None = None,
    label_dates: Sequence[date] = (),
    on_switch: OnSwitch = "retrain",
    retrain: bool = False,
) -> "Predictions":
    """Write ``predictions`` of the published version at its date or another scored date.

    Every user with an event in the longest window gets the probability to have no event in the next
    ``evaluation.horizon_days``. Exactly the rows of this (model_version, as_of) are replaced.

    Args:
        label_dates: dates after which churn is learned; by default all dates at which the version was scored, whose
            horizon ends by ``as_of``, and whose future the version did not see in training.
        retrain: train a new model even if the old one fits.

    Raises:
        TableError: nothing is published, or there are no such embeddings.
        ConsumerError: the model is of another space and ``on_switch`` is ``refuse``, or there is nothing to learn from.
    """
    switch = published(tables, config.name)
    if switch is None:
        raise TableError(f"nothing is published for pipeline '{config.name}'; run the publish job first")
    version, day = switch.model_version, as_of or switch.as_of
    rows = read_embeddings(tables.spark, config, version, day).where(F.col("events") > 0)
    stored = read_model(tables, config.name)
    why = "it was asked for" if retrain else _unfit(stored, space_of(tables, version), config.evaluation.horizon_days)
    if stored and why and not retrain and on_switch == "refuse":
        raise ConsumerError(
            f"the churn model, trained on {stored.trained_on}, cannot score {version}: {why}; nothing was written. "
            f"Train a new one (--on-switch retrain), or publish an aligned one (train --align-to {stored.trained_on})"
        )
    if stored is None or why:
        log.info("churn: trains on %s: %s", version, why)
        model = train(tables, config, version, day, label_dates)
        _store(tables, config.name, model)
    else:
        log.info("churn: uses the model that was trained on %s, because %s is in its space", stored.trained_on, version)
        model = stored
    count = _write(tables, rows, model, version, day, config.fields.user_id.type)
    return Predictions(model=model, file=_model_file(tables, config.name), model_version=version, as_of=day, rows=count)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Rows of ``predictions`` that were written, and the model that made them."""

    model: ChurnModel
    file: str
    """The file of the model."""
    model_version: str
    as_of: date
    rows: int

    @property
    def account(self) -> Account:
        """Entries for the run's row."""
        version, day, trained_on = self.model_version, self.as_of, self.model.trained_on
        return Account(
            inputs={"embeddings": f"{version} at {day}", "churn model": f"trained on {trained_on}"},
            counts={"rows": self.rows, "training rows": self.model.rows},
            outputs={"predictions": f"model_version={version}, as_of={day}", "model": self.file},
        )


def _unfit(model: ChurnModel | None, space: str, horizon_days: int) -> str | None:
    """Reason why a model cannot score; None where it can."""
    if model is None:
        return "there is no model yet"
    if model.space != space:
        return f"its embeddings are in the space of {space}, the model's in that of {model.space}"
    if model.horizon_days != horizon_days:
        return f"it tells {model.horizon_days} days ahead, expected {horizon_days}"
    return None


def train(tables: Tables, config: Config, version: str, known_by: date, label_dates: Sequence[date] = ()) -> ChurnModel:
    """Fit a model on the version's embeddings at each date, and on the churn after it.

    Raises:
        ConsumerError: there is no scored date whose future is known by ``known_by`` and was not seen in training, or
            all or none of the users churned.
    """
    horizon = config.evaluation.horizon_days
    first, last = seen_until(tables, version), _last_known(known_by, horizon, config.aggregates.delay_days)
    dates = sorted(label_dates) or _label_dates(tables, version, first, last, horizon)
    if dates[-1] > last:
        raise ConsumerError(
            f"churn in the {horizon} days from {dates[-1]} on is not known on {known_by}; expected dates up to {last}"
        )
    if dates[0] < first:
        raise ConsumerError(
            f"{version} was trained on events before {first}: its embeddings at {dates[0]} may know who churned then; "
            "expected dates from there on"
        )
    questions = _labels(tables, config, version, dates)
    # Features are known from as_of plus the delay on, so each label gets the embedding of its own date.
    delay = config.aggregates.delay_days
    answered = training_set(
        tables.spark, config, questions, max_age_days=delay, features=["embeddings"], version=version
    ).where("found")
    sampled = answered.orderBy(F.xxhash64(F.lit(SALT), "user_id", "label_time")).limit(config.evaluation.max_users)
    table = sampled.select("user_id", "embedding", (F.col("churn") == labels.CHURN_CLASSES[1]).alias("churned"))
    found = table.toArrow().sort_by("user_id")
    x_NL, churned_N = matrix(found["embedding"]), found["churned"].to_numpy()
    test_N = held_out(found["user_id"].combine_chunks(), config.evaluation.test_share, SALT)
    weights_L, bias = fit(x_NL[~test_N], churned_N[~test_N])
    score_N = x_NL[test_N] @ weights_L + bias
    both = len(set(churned_N[test_N].tolist())) == 2
    return ChurnModel(
        trained_on=version,
        space=space_of(tables, version),
        label_dates=tuple(map(str, dates)),
        horizon_days=horizon,
        rows=int((~test_N).sum()),
        auc=auc(score_N[~churned_N[test_N]], score_N[churned_N[test_N]]) if both else None,
        weights=tuple(weights_L.tolist()),
        bias=bias,
    )


def fit(x_NL: Array, churned_N: Mask) -> tuple[Array, float]:
    """Fit a ridge-penalised logistic regression on standardised columns.

    Returns weights (L,) and bias for the columns as they are.

    Raises:
        ConsumerError: all users churned, or none of them.
    """
    if len(set(churned_N.tolist())) < 2:
        raise ConsumerError(f"{churned_N.sum()} of {len(churned_N)} users churned: there is nothing to tell apart")
    mean_L, std_L = x_NL.mean(0), x_NL.std(0)
    std_L = np.where(std_L > 0, std_L, 1)
    sklearn = import_extra("sklearn.linear_model", "evaluate", "the churn example")
    fitted = sklearn.LogisticRegression(C=0.1, max_iter=5000).fit((x_NL - mean_L) / std_L, churned_N)
    weights_L = fitted.coef_[0] / std_L
    return weights_L, float(fitted.intercept_[0] - mean_L @ weights_L)


def read_model(tables: Tables, pipeline: str) -> ChurnModel | None:
    """Read the stored model, if there is one.

    Raises:
        ConsumerError: its file is damaged.
    """
    file = _model_file(tables, pipeline)
    try:
        return ChurnModel.model_validate_json(storage.read_text(file))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConsumerError(f"{file} is no churn model: {error}; remove it to train a new one") from error


def _store(tables: Tables, pipeline: str, model: ChurnModel) -> None:
    file = _model_file(tables, pipeline)
    storage.write_text(f"{file}.new", model.model_dump_json(indent=2) + "\n")
    storage.move(f"{file}.new", file)


def _model_file(tables: Tables, pipeline: str) -> str:
    return tables.folder("churn_example", pipeline, "model.json")


def _last_known(known_by: date, horizon_days: int, delay_days: int) -> date:
    """Last date after which churn is known. The events of a day may land some days later."""
    return known_by - timedelta(horizon_days + delay_days)


def _label_dates(tables: Tables, version: str, first: date, last: date, horizon: int) -> list[date]:
    """Dates from ``first`` to ``last`` at which a version was scored."""
    scored = EMBEDDINGS.dates(tables, version)
    dates = [day for day in scored if first <= day <= last]
    if not dates:
        raise ConsumerError(
            f"nothing to learn churn from: {version} was scored at {list(map(str, scored))}, expected a date from "
            f"{first} on, where its training ended, and up to {last}, whose {horizon} days are known; "
            f"run score --model {version} --as-of DATE"
        )
    return dates


def _labels(tables: Tables, config: Config, version: str, dates: Sequence[date]) -> DataFrame:
    """Labels ``user_id, churn, label_time``: one row per date and user with an event in the window before it."""
    events = event_rows(tables.read("events", made_by="ingest"), config.manifest())
    horizon, delay_days = config.evaluation.horizon_days, config.aggregates.delay_days
    check_complete(events, config, [dates[-1]], horizon, EvaluationError)

    def at(day: date) -> DataFrame:
        active = read_embeddings(tables.spark, config, version, day).where(F.col("events") > 0)
        known = F.lit(day + timedelta(delay_days))
        ahead = events_ahead(events, day, horizon, delay_days)
        return labels.churn(active, ahead).withColumn("label_time", known)

    return reduce(DataFrame.unionByName, map(at, dates))


def _write(tables: Tables, rows: DataFrame, model: ChurnModel, version: str, day: date, id_type: str) -> int:
    """Replace the rows of a version and date; returns how many there are now."""
    count = check_keys(rows, ["user_id"], f"embeddings of {version} at {day}")
    user_id = schema.SQL_USER_ID[id_type]
    scored = rows.select("user_id", "embedding").mapInArrow(kernel(model), f"user_id {user_id}, probability DOUBLE")
    keyed = scored.select(
        "user_id",
        F.lit(day).alias("as_of"),
        F.lit(version).alias("model_version"),
        F.lit(model.trained_on).alias("trained_on"),
        "probability",
    )
    tables.create("predictions", schema.predictions_schema(id_type), ["model_version", "as_of"])
    tables.replace(keyed, "predictions", f"model_version = '{version}' AND as_of = DATE '{day}'")
    return count


def kernel(model: ChurnModel) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Function for workers that scores batches of ``user_id, embedding``."""
    weights_L, bias = np.array(model.weights), model.bias

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            odds_N = matrix(batch["embedding"]) @ weights_L + bias
            probability = pa.array(1 / (1 + np.exp(-np.clip(odds_N, -700, 700))))
            yield pa.RecordBatch.from_arrays([batch["user_id"], probability], names=["user_id", "probability"])

    return score

"""Training sets without leaks: labels joined with the features that were known at each label's time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import Literal

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, TimestampType

from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError, TableError
from gur_spark.features.states.base import DAY_US
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Form
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.registry.known import find_model
from gur_spark.schema import SQL_USER_ID
from gur_spark.snapshots.pivots import newest_manifest
from gur_spark.snapshots.stale import is_usual
from gur_spark.snapshots.visible import Snapshot, visible_snapshots
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.paths import read_parquet

Features = Literal["aggregates", "embeddings"]


@dataclass(frozen=True, kw_only=True)
class _FeatureRows:
    """Features of users at several dates."""

    dates: frozenset[date]
    columns: tuple[str, ...]
    """Names of the features."""
    frame: DataFrame
    """One row per user_id and as_of, with the features."""


def training_set(
    spark: SparkSession,
    config: Config,
    labels: DataFrame,
    *,
    max_age_days: int,
    features: Sequence[Features] = ("aggregates",),
    version: str | None = None,
    label_time: str = "label_time",
) -> DataFrame:
    """Attach to every label the newest features that were known at its time.

    A snapshot is known from its ``known_at`` on, which is midnight UTC of as_of plus ``aggregates.delay_days``. Each
    label has exactly one row, with nulls where there are no features. Aggregates hold nothing from after the label.
    Embeddings are made from such aggregates by a model that may have been trained later; for a strict backtest, name a
    ``version`` that was trained before the labels.

    Args:
        labels: ``user_id``, ``label_time`` (TIMESTAMP, or DATE for its midnight UTC) and any other columns.
        max_age_days: greatest age of features, from as_of to the label.
        features: ``aggregates``, ``embeddings`` or both; both are of the same date.
        version: model version of the embeddings, whose vocabulary the aggregates must have; by default the published
            one, or the newest before the first publish.
        label_time: name of the labels' time column.

    Returns:
        The columns of the labels; ``as_of``, null where no date is young enough; ``found``, whether the user has
        features at that date; the feature columns of the manifest; ``model_version`` and ``embedding``.

    Raises:
        TableError: a column of the labels is missing, has another type, or the name of a feature.
        SnapshotError: there is no snapshot, or no embeddings of the version.
    """
    tables = open_tables(spark, config.tables)
    if isinstance(features, str) or not features or not set(features) <= _READERS.keys():
        raise TableError(f"features: expected a list of {' and '.join(map(repr, _READERS))}, got {features!r}")
    by_name: dict[str, _FeatureRows] = {name: _READERS[name](tables, config, version) for name in features}
    sources = list(by_name.values())
    dates = frozenset.intersection(*[source.dates for source in sources])
    if not dates:
        raise SnapshotError(f"no date has both; {_ranges(by_name)}")
    columns, delay_days = [name for source in sources for name in source.columns], config.aggregates.delay_days
    _check_labels(labels, config.fields.user_id.type, label_time, columns)
    newest = _newest_known(_micros(labels, label_time), dates, delay_days, max_age_days)
    dated = labels.withColumn("as_of", newest)
    features_of_date = reduce(lambda a, b: a.join(b, ["user_id", "as_of"], "inner"), [s.frame for s in sources])
    # A column of its own tells whether there is a row, because any feature may be null.
    found = features_of_date.withColumn("found", F.lit(True))
    joined = dated.join(found, ["user_id", "as_of"], "left").withColumn("found", F.col("found").isNotNull())
    added = ["as_of", "found", *columns]
    return joined.select(*[F.col(f"`{name}`") for name in [*labels.columns, *added]])


def _aggregates(tables: Tables, config: Config, version: str | None) -> _FeatureRows:
    manifest = newest_manifest(tables, config)
    vocabulary = _vocabulary(tables, config, version)
    usable = [
        s
        for s in _usual_snapshots(tables, config.aggregates.delay_days, Form.AGGREGATES)
        if s.manifest_hash == manifest.hash and vocabulary in (None, s.vocabulary_hash)
    ]
    if not usable:
        there = sorted({f"{s.as_of} (manifest {s.manifest_hash})" for s in visible_snapshots(tables, Form.AGGREGATES)})
        raise SnapshotError(
            f"no snapshot of manifest {manifest.hash} and vocabulary {vocabulary or 'of any version'}; "
            f"available: {there}; run the aggregate job"
        )
    newest = max(usable, key=lambda s: (s.vocabulary_version, s.as_of)).vocabulary_hash
    chosen = [s for s in usable if s.vocabulary_hash == newest]
    return _FeatureRows(
        dates=frozenset(s.as_of for s in chosen),
        columns=tuple(c.name for c in manifest.columns if c.statistic != "key"),
        frame=read_parquet(tables.spark, *[s.data for s in chosen]),
    )


def _embeddings(tables: Tables, config: Config, version: str | None) -> _FeatureRows:
    found = find_model(tables, config, version)
    model = found.rows_version
    rows = tables.read("embeddings", made_by="score").where(F.col("model_version") == model)
    # Only dates with a usual snapshot, because otherwise it is not known which landings the embeddings know.
    snapshots = _usual_snapshots(tables, config.aggregates.delay_days, find(found.kind).reads)
    read = found.manifest_hash, found.vocabulary_hash
    usual = {s.as_of for s in snapshots if (s.manifest_hash, s.vocabulary_hash) == read}
    dates = frozenset(usual.intersection(EMBEDDINGS.dates(tables, model)))
    if not dates:
        raise SnapshotError(f"no embeddings of {model}; run the score job")
    return _FeatureRows(
        dates=dates,
        columns=("model_version", "embedding"),
        frame=rows.select("user_id", "as_of", "model_version", "embedding"),
    )


_READERS = {"aggregates": _aggregates, "embeddings": _embeddings}


def _usual_snapshots(tables: Tables, delay_days: int, form: Form) -> list[Snapshot]:
    """Snapshots of a form whose ``known_at`` is that of the configured delay."""
    return [s for s in visible_snapshots(tables, form) if is_usual(s, delay_days)]


def _vocabulary(tables: Tables, config: Config, version: str | None) -> str | None:
    """Hash of the vocabulary that the model was trained with; None, which means the newest, if there is no model."""
    if version is None and not tables.exists("models"):
        return None
    return find_model(tables, config, version).vocabulary_hash


def _newest_known(label_us: Column, dates: Collection[date], delay_days: int, max_age_days: int) -> Column:
    """Newest date that was known at the label's time and is young enough, found by comparing with each date."""
    known = F.array(*[F.lit(day) for day in sorted(dates)])

    def usable(day: Column) -> Column:
        start_us = F.unix_date(day).cast("BIGINT") * DAY_US
        delay_us = delay_days * DAY_US
        return (start_us + delay_us <= label_us) & (label_us - start_us <= max_age_days * DAY_US)

    return F.array_max(F.filter(known, usable))


def _micros(labels: DataFrame, label_time: str) -> Column:
    """Time of the labels in microseconds since 1970, whatever the session's time zone."""
    time = F.col(label_time)
    if isinstance(labels.schema[label_time].dataType, DateType):
        return F.unix_date(time).cast("BIGINT") * DAY_US
    return F.unix_micros(time)


def _check_labels(labels: DataFrame, id_type: str, label_time: str, added: Collection[str]) -> None:
    for name in ("user_id", label_time):
        if name not in labels.columns:
            raise TableError(f"labels have no column '{name}'; available: {labels.columns}")
    # Spark's column names are not case-sensitive.
    names = [name.lower() for name in labels.columns]
    taken = sorted({"as_of", "found", *added} & set(names))
    if taken:
        raise TableError(f"labels have columns that the training set adds: {taken}; rename them")
    if len(set(names)) != len(names):
        raise TableError(f"labels have a column twice: {labels.columns}")
    expected = SQL_USER_ID[id_type].lower()
    user = labels.schema["user_id"].dataType.simpleString()
    if user != expected:
        raise TableError(f"labels: user_id is {user}, expected {expected} as in the events")
    time = labels.schema[label_time].dataType
    if not isinstance(time, (DateType, TimestampType)):
        raise TableError(f"labels: {label_time} is {time.simpleString()}, expected timestamp or date")


def _ranges(sources: Mapping[str, _FeatureRows]) -> str:
    return "; ".join(f"{name}: {sorted(map(str, source.dates))}" for name, source in sources.items())

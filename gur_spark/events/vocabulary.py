"""Vocabulary: ids of category values that stay the same from fit to fit.

Id 0 is padding, 1 an unknown or rare value, 2 a missing value, and from 3 on each kept value has its own. The table
``vocabulary`` has one row per (field, value, version). The row with a null value has id 2 and counts the events without
a value, so every field has a row.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from gur_spark import schema
from gur_spark.config.logs import Log
from gur_spark.config.pipeline import Config
from gur_spark.config.snapshots import Vocabulary as Limits
from gur_spark.errors import TableError
from gur_spark.events.sets import each_member
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Account

# Beyond this many ids a broadcast costs more memory than the shuffle it saves.
BROADCAST_IDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """One version of the vocabulary. Version 0 is empty: no categorical field was fitted yet."""

    version: int
    hash: str
    sizes: dict[str, int]
    """Field -> greatest id + 1, which is the height of an embedding table."""
    frame: DataFrame
    """One row per (field, value): ``field, value, id``."""

    def texts(self, field: str, ids: Sequence[int]) -> dict[int, str]:
        """Read the values of some ids of a field; an id that stands for no value has none."""
        wanted = (F.col("field") == F.lit(field)) & F.col("id").isin(list(ids)) & F.col("value").isNotNull()
        return {row["id"]: row["value"] for row in self.frame.where(wanted).select("id", "value").collect()}

    def account(self, fields: Sequence[str]) -> Account:
        """Entries for the row of the run that fitted these fields."""
        return Account(
            counts={f"{name}_values": self.sizes[name] - schema.FIRST_VALUE_ID for name in fields},
            outputs={"vocabulary": f"version {self.version}, hash {self.hash}"},
        )


def fit_vocabulary(tables: Tables, config: Config, before: date | None = None) -> Vocabulary:
    """Fit every categorical field over ``events`` and return the newest version.

    A value of the newest version keeps its id, whatever its count is now. New values follow the greatest id, by
    descending count and then by value. An unchanged mapping makes no new version.

    Args:
        before: count only events before this UTC date, so that a vocabulary can be fitted as of a past date.

    Raises:
        TableError: there are no events yet.
    """
    events = tables.read("events", made_by="ingest")
    if before:
        events = events.where(F.col("event_time") < F.lit(before).cast("timestamp"))
    tables.create("vocabulary", schema.VOCABULARY)
    known = read_vocabulary(tables)
    fields, separators = config.categorical, config.manifest().separators

    def having(name: str) -> DataFrame:
        rows = _having(events, name, config.all_logs)
        return each_member(rows.select(name), {name: separators[name]}) if name in separators else rows

    mapping = pa.concat_tables(
        [
            _table_schema().empty_table(),
            *(_fit_field(having(name), name, known, config.vocabulary) for name in fields),
            # A field that left the configuration keeps its ids, because it may come back.
            *(_unchanged(known, name) for name in sorted(known.sizes.keys() - set(fields))),
        ]
    )
    digest = mapping_hash(mapping)
    if digest != known.hash:
        _write(tables, mapping, known.version + 1, digest)
        known = read_vocabulary(tables, known.version + 1)
        if known.hash != digest:
            raise TableError(f"another fit wrote vocabulary version {known.version} at the same time; fit again")
    return known


def read_vocabulary(tables: Tables, version: int | None = None) -> Vocabulary:
    """Read a version of the vocabulary; the newest one where none is given.

    Raises:
        TableError: there is no such table or version.
    """
    table = tables.read("vocabulary", made_by="vocabulary")
    found = table.groupBy("version", "hash", "field").agg((F.max("id") + 1).alias("size")).collect()
    versions = sorted({row["version"] for row in found})
    wanted = version if version is not None else max(versions, default=0)
    # Version 0 has no rows.
    if version and version not in versions:
        raise TableError(f"vocabulary has no version {version}; available: {versions or 'none'}")
    rows = [row for row in found if row["version"] == wanted]
    return Vocabulary(
        version=wanted,
        hash=rows[0]["hash"] if rows else mapping_hash(_table_schema().empty_table()),
        sizes={row["field"]: row["size"] for row in sorted(rows, key=lambda row: row["field"])},
        frame=table.where(F.col("version") == wanted).select("field", "value", "id"),
    )


def encode(events: DataFrame, vocabulary: Vocabulary, fields: Sequence[str]) -> DataFrame:
    """Replace the text of categorical columns by ids: 2 for null, 1 for a value without an id.

    Raises:
        TableError: the vocabulary was not fitted on one of the fields.
    """
    for name in fields:
        if name not in vocabulary.sizes:
            raise TableError(
                f"vocabulary version {vocabulary.version} has no field '{name}'; "
                f"available: {list(vocabulary.sizes)}; run the vocabulary job again"
            )
        events = _encode_field(events, vocabulary, name)
    return events


def mapping_hash(mapping: pa.Table) -> str:
    """Hash of the sorted (field, value, id), 16 hex digits; counts do not change it."""
    ordered = mapping.select(["field", "value", "id"]).sort_by([("field", "ascending"), ("id", "ascending")])
    digest = sha256()
    for batch in ordered.to_batches(max_chunksize=65_536):
        for field, value, identifier in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            digest.update(json.dumps([field, value, identifier]).encode() + b"\n")
    return digest.hexdigest()[:16]


def _encode_field(events: DataFrame, vocabulary: Vocabulary, name: str) -> DataFrame:
    value, identifier = f"_{name}_value", f"_{name}_id"
    ids = vocabulary.frame.where(F.col("field") == name).select(
        F.col("value").alias(value), F.col("id").alias(identifier)
    )
    if vocabulary.sizes[name] <= BROADCAST_IDS:
        ids = F.broadcast(ids)
    # Null equals nothing, so a missing value is not joined to the vocabulary's row of null.
    joined = events.join(ids, F.col(name) == F.col(value), "left")
    found = F.coalesce(F.col(identifier), F.lit(schema.UNKNOWN_ID))
    encoded = F.when(F.col(name).isNull(), F.lit(schema.MISSING_ID)).otherwise(found)
    return joined.select(*[encoded.alias(name) if c == name else F.col(c) for c in events.columns])


def _table_schema() -> pa.Schema:
    return pa.schema({"field": pa.string(), "value": pa.string(), "id": pa.int32(), "count": pa.int64()})


def _fit_field(events: DataFrame, name: str, known: Vocabulary, limits: Limits) -> pa.Table:
    """Rows of a field in the next version: the missing value, then known values by id, then new values."""
    first_new = known.sizes.get(name, schema.FIRST_VALUE_ID)
    known_values = first_new - schema.FIRST_VALUE_ID
    kept = max(limits.max_size_of(name), known_values)
    counts = events.groupBy(F.col(name).alias("value")).agg(F.count(F.lit(1)).alias("count"))
    if known_values:
        counts = counts.join(_values(known, name), "value", "full")
    else:
        counts = counts.withColumn("id", F.lit(None).cast("int"))
    frequent = F.col("count") >= limits.min_count_of(name)
    null = F.col("value").isNull()
    ranked = counts.where(null | F.col("id").isNotNull() | frequent).orderBy(
        null.desc(), F.col("id").asc_nulls_last(), F.col("count").desc(), "value"
    )
    # The null value comes first, if some event has none.
    found = ranked.limit(kept + 1).toArrow()
    without = found["value"].null_count
    missing, top = (found["count"][0].as_py() if without else 0), found.slice(without, kept)
    new = top.num_rows - known_values
    ids = np.concatenate([top["id"].to_numpy()[:known_values], np.arange(first_new, first_new + new)])
    return pa.table(
        {
            "field": [name] * (top.num_rows + 1),
            "value": pa.concat_arrays([pa.array([None], pa.string()), *top["value"].cast(pa.string()).chunks]),
            "id": np.concatenate([[schema.MISSING_ID], ids]).astype("int32"),
            "count": np.concatenate([[missing], top["count"].fill_null(0).to_numpy()]).astype("int64"),
        },
        schema=_table_schema(),
    )


def _having(events: DataFrame, field: str, logs: Mapping[str, Log]) -> DataFrame:
    """Events of the logs that have a field."""
    having = [name for name, log in logs.items() if field in log.columns]
    return events if len(having) == len(logs) else events.where(F.col("source").isin(having))


def _values(known: Vocabulary, name: str) -> DataFrame:
    rows = (F.col("field") == name) & F.col("value").isNotNull()
    return known.frame.where(rows).select("value", "id")


def _unchanged(known: Vocabulary, name: str) -> pa.Table:
    """Rows of a field that is not fitted this time, with counts of 0."""
    rows = known.frame.where(F.col("field") == name).withColumn("count", F.lit(0).cast("bigint"))
    return rows.orderBy("id").toArrow().cast(_table_schema())


def _write(tables: Tables, mapping: pa.Table, version: int, digest: str) -> None:
    stamps: dict[str, Column] = {
        "version": F.lit(version),
        "hash": F.lit(digest),
        "created": F.lit(datetime.now(UTC)),
    }
    frame = tables.spark.createDataFrame(mapping).withColumns(stamps)
    # Replaced and not appended, so that of two fits at once only one becomes this version.
    tables.replace(frame, "vocabulary", f"version = {version}")

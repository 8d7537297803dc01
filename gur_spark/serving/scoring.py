"""Scoring a date: embeddings of a snapshot, checked, judged by the gates, and put in place of the date's rows."""

import logging
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import schema, storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import TableError
from gur_spark.registry import artefact as registry
from gur_spark.registry.artefact import LoadedModel
from gur_spark.registry.names import VersionName
from gur_spark.serving import changes
from gur_spark.serving.publishing import Published, check_replacement, published
from gur_spark.serving.workers import check_fit, embed
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.visible import Snapshot
from gur_spark.spaces.smoothing import last_dates, smoothed
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.runs import Run

log = logging.getLogger("gur_spark")


def score_snapshot(
    tables: Tables,
    config: Config,
    snapshot: Snapshot,
    model_path: str,
    run: Run,
    changed_since: date | None = None,
    force: bool = False,
) -> str:
    """Embed every user of a snapshot and replace exactly this (model_version, as_of) in ``embeddings``.

    Of users whose inputs are those that their embedding of an earlier scoring was made of, that one is copied: they
    are the same bits. ``changed_since`` is its date, ``as_of`` itself for what the rows stand in place of. With
    ``scoring.changed_only`` it is the newest one there is, and everyone is embedded where it cannot be compared with;
    the run says why. With ``scoring.smoothing`` the means of the last dates are written as well.

    Rows that are published are replaced only by such as pass the gates against them, or by ``force``.

    Returns the model version.

    Raises:
        ModelError: the model is damaged, was trained on other aggregates, or gives a value that is not finite.
        GateError: a gate is not passed, by the rows or their means; nothing was replaced.
        SnapshotError: changed_since, and the snapshot that it was made from is gone.
        TableError: the snapshot's Parquet is not what its row says; or changed_since, and it is not known what
            the embeddings of that date were made from.
        WriteConflict: another run scored at the same time and won; run again.
    """
    files = registry.pack(model_path)
    model = registry.unpack(files)
    check_fit(model, snapshot)
    _check_rows(tables, snapshot)
    tables.create("embeddings", schema.embeddings_schema(model.manifest.user_id_type), ["model_version", "as_of"])
    staging = tables.folder("_staging", run.id)
    began = tables.version("embeddings") if _read_again(tables, config, model.version, snapshot) else None
    try:
        frame = _embedded(tables, config, snapshot, files, model, changed_since, staging, run)
        if began is not None:
            frame = _staged(tables, frame, storage.join(staging, "rows"))
        by_version = _with_means(tables, config, model, snapshot, frame, staging, run)
        _replace(tables, config, by_version, snapshot, force, began)
    finally:
        storage.remove_folder(staging)
    run.inputs |= {"model": model.version, f"snapshot {snapshot.as_of}": snapshot.path}
    run.outputs[f"embeddings {snapshot.as_of}"] = f"model_version={model.version}"
    run.counts[f"rows {snapshot.as_of}"] = snapshot.rows
    _warn_of_stale(published(tables, config), model.version, by_version)
    return model.version


def _check_rows(tables: Tables, snapshot: Snapshot) -> None:
    rows = check_keys(tables.spark.read.parquet(snapshot.data), ["user_id"], f"aggregates of {snapshot.as_of}")
    if rows != snapshot.rows:
        raise TableError(
            f"aggregates of {snapshot.as_of} at {snapshot.data} have {rows} rows; snapshots says {snapshot.rows}"
        )


def _warn_of_stale(now: Published | None, version: str, written: Collection[str]) -> None:
    """Say so where a version's published name, its own or its means', gets no rows any more (``scoring.smoothing``)."""
    if now and VersionName.parse(now.model_version).base == version and now.model_version not in written:
        log.warning(
            "score: %s is published and stays at %s: with this scoring.smoothing no more rows of it are written; "
            "publish --model %s",
            now.model_version,
            now.as_of,
            list(written)[-1],
        )


def _read_again(tables: Tables, config: Config, version: str, snapshot: Snapshot) -> bool:
    """Whether the rows are read more than once, so that they are staged: embedding them takes longer than a copy."""
    there = Published(model_version=version, as_of=snapshot.as_of)
    return config.scoring.smoothing > 1 or published(tables, config) == there


def _embedded(
    tables: Tables,
    config: Config,
    snapshot: Snapshot,
    files: Mapping[str, bytes],
    model: LoadedModel,
    changed_since: date | None,
    staging: str,
    run: Run,
) -> DataFrame:
    """The rows of the date: embedded, or copied where the inputs are the same."""
    before = _comparable(tables, config, model.version, snapshot, changed_since, run)
    marked = _marked(tables, before, snapshot, model, staging, run) if before else None
    changed = marked.where(~F.col("same")).select("row_group", "row") if marked else None
    frame = embed(tables.spark, snapshot, files, model, config.scoring.batch_rows, changed)
    if before and marked:
        copied = before.rows(tables).join(marked.where("same").select("user_id"), "user_id", "left_semi")
        frame = frame.unionByName(copied.select(*frame.columns))
    return _keyed(frame, model.version, snapshot.as_of)


def _comparable(
    tables: Tables, config: Config, version: str, snapshot: Snapshot, since: date | None, run: Run
) -> changes.Scored | None:
    """What the inputs are to be compared with; None where everyone is embedded."""
    key = f"changed since {snapshot.as_of}"
    if since is None and not config.scoring.changed_only:
        return None
    try:
        find = changes.find_scored if since else changes.newest_scored
        before = find(tables, version, since or snapshot.as_of)
        row_groups(before.snapshot)
    except changes.CANNOT_COMPARE as error:
        if since:
            raise
        log.info("score %s: everyone, %s", snapshot.as_of, error)
        run.inputs[key] = f"everyone: {error}"
        return None
    run.inputs[key] = f"{before.as_of}, made from {before.snapshot}"
    return before


def _marked(
    tables: Tables, before: changes.Scored, snapshot: Snapshot, model: LoadedModel, staging: str, run: Run
) -> DataFrame:
    """``changes.compare``, as it lies in the staging folder; adds to the run how many are embedded and copied."""
    marked = _staged(tables, changes.compare(tables, before, snapshot, model.manifest), storage.join(staging, "marked"))
    copied = marked.where("same").count()
    run.counts |= {f"encoded {snapshot.as_of}": snapshot.rows - copied, f"copied {snapshot.as_of}": copied}
    return marked


def _keyed(frame: DataFrame, version: str, as_of: date) -> DataFrame:
    """The columns of ``embeddings``."""
    return frame.select(
        "user_id", F.lit(as_of).alias("as_of"), F.lit(version).alias("model_version"), "embedding", "events"
    )


def _with_means(
    tables: Tables, config: Config, model: LoadedModel, snapshot: Snapshot, rows: DataFrame, staging: str, run: Run
) -> dict[str, DataFrame]:
    """What is to be written, by model_version: the date's rows, and the means of them and of the dates before."""
    day, dates = snapshot.as_of, config.scoring.smoothing
    if dates == 1:
        return {model.version: rows}
    before = last_dates(tables, model.version, day - timedelta(1), dates - 1)
    earlier = tables.read("embeddings").where(F.col("model_version") == model.version)
    all_rows = earlier.where(F.col("as_of").isin(before)).select(*rows.columns).unionByName(rows)
    means = smoothed(all_rows, day, model.manifest.user_id_type, model.model.has_unit_norm())
    name = str(VersionName(model.version, mean_of=dates))
    run.inputs[f"means {day}"] = " ".join(map(str, sorted([*before, day])))
    run.outputs[f"means {day}"] = f"model_version={name}"
    return {model.version: rows, name: _staged(tables, _keyed(means, name, day), storage.join(staging, "means"))}


def _staged(tables: Tables, frame: DataFrame, folder: str) -> DataFrame:
    frame.write.mode("overwrite").parquet(folder)
    return tables.spark.read.schema(frame.schema).parquet(folder)


def _replace(
    tables: Tables,
    config: Config,
    by_version: Mapping[str, DataFrame],
    snapshot: Snapshot,
    force: bool,
    began: int | None,
) -> None:
    """Make these the rows of their versions and the date, in one commit, which says what they were made from.

    ``began`` is the table's version before rows were staged: Delta sees only the conflicts of a write that embeds while
    it writes. Means are of the rows of other dates, too.
    """
    if not force:
        for version, rows in by_version.items():
            check_replacement(tables, config, rows, version, snapshot.as_of)
    if began is not None:
        changes.check_untouched(tables, began, by_version, snapshot.as_of if len(by_version) == 1 else None)
    versions = ", ".join(f"'{version}'" for version in by_version)
    within = f"model_version IN ({versions}) AND as_of = DATE '{snapshot.as_of}'"
    rows = reduce(DataFrame.unionByName, by_version.values())
    tables.replace(rows, "embeddings", within, changes.note(next(iter(by_version)), snapshot))

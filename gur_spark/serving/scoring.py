"""Scoring a date: a model version scores a snapshot, the rows are checked and judged by gates, and replace the old
ones."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.config.training import Scoring
from gur_spark.errors import ModelError, TableError
from gur_spark.models.kind import Capability
from gur_spark.outputs.catalogue import find_output
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.notes import Note
from gur_spark.outputs.output import Output
from gur_spark.registry.artefact import LoadedModel, unpack
from gur_spark.registry.files import pack
from gur_spark.registry.fit import check_fit
from gur_spark.registry.names import VersionName
from gur_spark.registry.published import Published, published
from gur_spark.serving import changes
from gur_spark.serving.publishing import check_replacement
from gur_spark.serving.workers import score_rows
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.visible import Snapshot
from gur_spark.spaces.smoothing import last_dates, smoothed
from gur_spark.tables.delta import Tables, check_keys
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class ScoringResult:
    """Result of scoring a date."""

    model_version: str
    as_of: date
    rows: int
    account: Account


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Inputs of the scoring of one date, and its staging folder."""

    tables: Tables
    config: Config
    snapshot: Snapshot
    files: Mapping[str, bytes]
    model: LoadedModel
    staging: str
    changed_since: date | None
    force: bool
    account: Account
    """Filled while the date is scored."""

    @property
    def as_of(self) -> date:
        return self.snapshot.as_of

    @property
    def user_id_type(self) -> str:
        return str(self.model.manifest.user_id_type)

    def staged(self, frame: DataFrame, name: str) -> DataFrame:
        """Compute a frame once, and read it from the staging folder from then on."""
        folder = storage.join(self.staging, name)
        frame.write.mode("overwrite").parquet(folder)
        return self.tables.spark.read.schema(frame.schema).parquet(folder)


def score_snapshot(
    tables: Tables,
    config: Config,
    snapshot: Snapshot,
    model_path: str,
    run_id: str,
    changed_since: date | None = None,
    force: bool = False,
) -> ScoringResult:
    """Score every row of a snapshot and replace exactly this (model_version, as_of) in the tables that the model
    writes.

    A user whose inputs equal those of an earlier scoring keeps that embedding: it is copied, with the same bits.
    ``changed_since`` is the date of the earlier scoring; ``as_of`` itself means the rows that are replaced. With
    ``scoring.changed_only`` it is the newest scoring. Everyone is embedded if that scoring cannot be compared with, and
    the result says why. With ``scoring.smoothing`` the means of the last dates are written as well.

    New rows replace published ones only if they pass the gates against them, or by ``force``.

    Raises:
        ModelError: the model is damaged, was trained on other snapshots, or gives a row that breaks the contract; or
            changed_since, and embeddings of its kind cannot be copied.
        GateError: a gate is not passed, by the rows or their means; nothing was replaced.
        SnapshotError: the snapshot of ``changed_since`` is gone.
        TableError: the snapshot's Parquet is not what its row says; or the snapshot of ``changed_since`` is not known.
        WriteConflict: another run scored at the same time and won; run again.
    """
    files = pack(model_path)
    model = unpack(files)
    _check_abilities(model, config.scoring)
    check_fit(model, snapshot)
    _check_rows(tables, snapshot)
    job = _Job(
        tables=tables, config=config, snapshot=snapshot, files=files, model=model,
        staging=tables.folder("_staging", run_id), changed_since=changed_since, force=force,
        account=Account(inputs={"model": model.version, f"snapshot {snapshot.as_of}": snapshot.path}),
    )  # fmt: skip
    try:
        with kept_on_failure(job.account):
            # No output is replaced before all have passed their gates.
            for ready in [_made_ready(job, find_output(name)) for name in model.card.outputs]:
                _replace(job, ready)
                _warn_of_stale(published(tables, config.name), model.version, ready.by_version.keys())
    finally:
        storage.remove_folder(job.staging)
    job.account.counts[f"rows {snapshot.as_of}"] = snapshot.rows
    return ScoringResult(model_version=model.version, as_of=snapshot.as_of, rows=snapshot.rows, account=job.account)


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """Rows of one output that have passed the gates."""

    output: Output
    by_version: Mapping[str, DataFrame]
    """Rows by ``model_version``."""
    began: int | None
    """The table's version before rows were staged; None where they are computed while they are written."""


def _made_ready(job: _Job, output: Output) -> _Ready:
    """Score the rows of one output, and ask the gates where they replace published ones.

    Raises:
        GateError: a gate is not passed.
    """
    output.create(job.tables, job.user_id_type)
    began = job.tables.version(output.name) if _read_again(job, output) else None
    frame = _embedded(job) if output is EMBEDDINGS else _scored(job, output)
    frame = output.keyed(frame, job.model.version, job.as_of, job.user_id_type)
    if began is not None:
        frame = job.staged(frame, f"rows_of_{output.name}")
    by_version = _with_means(job, frame) if output is EMBEDDINGS else {job.model.version: frame}
    if not job.force:
        for version, rows in by_version.items():
            check_replacement(job.tables, job.config, output, rows, version, job.as_of)
    return _Ready(output=output, by_version=by_version, began=began)


def _check_abilities(model: LoadedModel, scoring: Scoring) -> None:
    """Raises ModelError where scoring asks for what the version's kind, which may not be the configured one, cannot."""
    for key, asked, capability in (
        ("smoothing", scoring.smoothing > 1, Capability.SMOOTHING),
        ("in_space_of", bool(scoring.in_space_of), Capability.MAPPING),
    ):
        if asked and capability not in model.kind.can:
            raise ModelError(
                f"scoring.{key} needs the capability '{capability}', and {model.version} is of kind "
                f"'{model.kind.name}', which has {sorted(map(str, model.kind.can))}"
            )


def _check_rows(tables: Tables, snapshot: Snapshot) -> None:
    rows = check_keys(read_parquet(tables.spark, snapshot.data), ["user_id"], f"{snapshot.form} of {snapshot.as_of}")
    if rows != snapshot.rows:
        raise TableError(
            f"{snapshot.form} of {snapshot.as_of} at {snapshot.data} have {rows} rows; snapshots says {snapshot.rows}"
        )


def _warn_of_stale(now: Published | None, version: str, written: Collection[str]) -> None:
    """Warn if the published name of a version, its own or its means', gets no rows any more (``scoring.smoothing``)."""
    if now and VersionName.parse(now.model_version).base == version and now.model_version not in written:
        log.warning(
            "score: %s is published and stays at %s: with this scoring.smoothing no more rows of it are written; "
            "publish --model %s",
            now.model_version,
            now.as_of,
            list(written)[-1],
        )


def _read_again(job: _Job, output: Output) -> bool:
    """Decide whether the rows are staged: they are if they are read twice, because scoring them takes longer than a
    copy."""
    there = Published(model_version=job.model.version, as_of=job.as_of)
    smoothed = output is EMBEDDINGS and job.config.scoring.smoothing > 1
    return smoothed or published(job.tables, job.config.name) == there


def _scored(job: _Job, output: Output, places: DataFrame | None = None) -> DataFrame:
    batch_rows = job.config.scoring.batch_rows
    return score_rows(job.tables.spark, job.snapshot, job.files, job.model, output, batch_rows, places)


def _embedded(job: _Job) -> DataFrame:
    """Embed the users of the date; embeddings of equal inputs are copied."""
    before = _comparable(job)
    if before is None:
        return _scored(job, EMBEDDINGS)
    marked = job.staged(changes.compare(job.tables, before, job.snapshot, job.model.manifest), "marked")
    copied = marked.where("same").count()
    job.account.counts.update({f"encoded {job.as_of}": job.snapshot.rows - copied, f"copied {job.as_of}": copied})
    frame = _scored(job, EMBEDDINGS, marked.where(~F.col("same")).select("row_group", "row"))
    same = before.rows(job.tables).join(marked.where("same").select("user_id"), "user_id", "left_semi")
    return frame.unionByName(same.select(*frame.columns))


def _comparable(job: _Job) -> changes.EarlierRows | None:
    """Find the rows whose inputs are compared; None where everyone is embedded."""
    key, since = f"changed since {job.as_of}", job.changed_since
    if since is None and not job.config.scoring.changed_only:
        return None
    try:
        _check_copying(job.model)
        find = changes.find_rows if since else changes.newest_rows
        before = find(job.tables, job.model.version, since or job.as_of)
        row_groups(before.snapshot)
    except changes.CANNOT_COMPARE as error:
        if since:
            raise
        log.info("score %s: everyone, %s", job.as_of, error)
        job.account.inputs[key] = f"everyone: {error}"
        return None
    job.account.inputs[key] = f"{before.as_of}, made from {before.snapshot}"
    return before


def _check_copying(model: LoadedModel) -> None:
    """Raises ModelError where equal inputs do not give equal embeddings at another date."""
    if Capability.COPYING not in model.kind.can:
        raise ModelError(
            f"{model.version} is of kind '{model.kind.name}', whose embeddings cannot be copied from another date; "
            "score without --changed-since and scoring.changed_only"
        )


def _with_means(job: _Job, rows: DataFrame) -> dict[str, DataFrame]:
    """Collect the rows to write by model_version: the date's own, and the means over it and the dates before."""
    version, day, dates = job.model.version, job.as_of, job.config.scoring.smoothing
    if dates == 1:
        return {version: rows}
    before = last_dates(job.tables, version, day - timedelta(1), dates - 1)
    earlier = job.tables.read(EMBEDDINGS.name).where(F.col("model_version") == version)
    all_rows = earlier.where(F.col("as_of").isin(before)).select(*rows.columns).unionByName(rows)
    means = smoothed(all_rows, day, job.user_id_type, job.model.model.has_unit_norm())
    name = str(VersionName(version, dates))
    job.account.inputs[f"means {day}"] = " ".join(map(str, sorted([*before, day])))
    job.account.outputs[f"means {day}"] = f"model_version={name}"
    return {version: rows, name: job.staged(EMBEDDINGS.keyed(means, name, day, job.user_id_type), "means")}


def _replace(job: _Job, ready: _Ready) -> None:
    """Replace the rows of these versions at the date in one commit, with a note on their origin.

    Delta sees conflicts only of a write that scores while it writes. Means depend on the rows of other dates, too.
    """
    output, by_version = ready.output, ready.by_version
    if ready.began is not None:
        of_date = job.as_of if len(by_version) == 1 else None
        changes.check_untouched(job.tables, output.name, ready.began, by_version, of_date)
    versions = ", ".join(f"'{version}'" for version in by_version)
    within = f"model_version IN ({versions}) AND as_of = DATE '{job.as_of}'"
    note = Note(
        model_version=next(iter(by_version)), as_of=job.as_of, snapshot=job.snapshot.path, lineage=job.snapshot.lineage
    )
    job.tables.replace(reduce(DataFrame.unionByName, by_version.values()), output.name, within, note.to_json())
    job.account.outputs[f"{output.name} {job.as_of}"] = f"model_version={job.model.version}"

"""Monitoring of a date: measure, judge, and write the table ``drift``.

Spark reads the columns that the model reads, of the snapshot and of its reference, and returns a sample of users chosen
by a hash of their ids (``monitor.sample`` on each side). Inputs are measured on these samples, numbers of users and
days on all rows.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from gur_spark import schema, storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import AnyManifest, Manifest, SequenceManifest
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.models.catalogue import find
from gur_spark.models.kind import Form
from gur_spark.monitoring.drift import Drift
from gur_spark.monitoring.embeddings import ScoredDates, embedding_drift
from gur_spark.monitoring.features import Distribution, compare, measured_columns
from gur_spark.monitoring.findings import Finding, Measurement, judge
from gur_spark.monitoring.freshness import freshness
from gur_spark.monitoring.sequences import compare_sequences, measured_lists, measured_subjects
from gur_spark.registry.known import ModelVersion, find_model
from gur_spark.snapshots.files import read_manifest, row_groups
from gur_spark.snapshots.visible import Snapshot
from gur_spark.snapshots.wanted import find_snapshot, wanted_manifest
from gur_spark.statistics.measures import ratio
from gur_spark.statistics.samples import some_users
from gur_spark.tables.delta import Tables
from gur_spark.tables.paths import read_parquet
from gur_spark.tables.runs import Account, kept_on_failure

log = logging.getLogger("gur_spark")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Snapshots that the inputs of a snapshot are compared with."""

    name: str
    paths: Sequence[str]
    vocabulary_version: int

    @classmethod
    def of_training(cls, model: ModelVersion) -> "Reference":
        name = f"training of {model.model_version}"
        return cls(name=name, paths=model.training_snapshots, vocabulary_version=model.vocabulary_version)

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot) -> "Reference":
        version = snapshot.vocabulary_version
        return cls(name=f"snapshot {snapshot.as_of}", paths=[snapshot.path], vocabulary_version=version)


def monitor(
    tables: Tables,
    config: Config,
    as_of: date,
    run_id: str,
    *,
    version: str | None = None,
    against: date | None = None,
    inputs_only: bool = False,
) -> Drift:
    """Measure a date, and replace exactly the rows of this pipeline and date in ``drift``.

    Args:
        version: a model version, or ``newest``; by default the published one.
        against: date whose snapshot is the reference; by default the snapshots that the version was trained on.
        inputs_only: measure no embeddings, which need not exist yet.

    Raises:
        ModelError: there is no such version.
        SnapshotError: there is no snapshot of the date with the columns and the vocabulary that the version reads
            (its freshness is written all the same), or the reference is gone.
        TableError: there are no events, or no embeddings of the version at the date.
    """
    model = None if inputs_only and against else find_model(tables, config, version)
    scored = ScoredDates.read(tables, model.rows_version) if model and not inputs_only else None
    form = find(model.kind if model else config.model.kind).reads
    manifest = model.manifest() if model else None
    vocabulary = model.vocabulary if model else None
    read = form, (manifest or wanted_manifest(tables, config, form)).hash, vocabulary and vocabulary[1]
    measured = list(freshness(tables, config, as_of, read, scored))
    try:
        snapshot = find_snapshot(tables, config, as_of, form, manifest=manifest, vocabulary=vocabulary)
    except SnapshotError:
        write_drift(tables, config.name, as_of, judge(measured, config.monitor), run_id)
        raise
    reference = _reference(tables, config, snapshot, model, against)
    inputs = {f"snapshot {as_of}": snapshot.path, f"reference {as_of}": " ".join(reference.paths)}
    with kept_on_failure(Account(inputs=inputs)):
        distributions = _distributions(tables, config.monitor.sample, snapshot, reference)
        measured += [_rows(snapshot, reference), *(one for d in distributions for one in d.measured(reference.name))]
        if scored:
            measured += embedding_drift(tables, config.name, config.monitor, scored, as_of)
        findings = judge(measured, config.monitor)
        write_drift(tables, config.name, as_of, findings, run_id)
    return Drift(
        inputs=inputs,
        as_of=as_of,
        users=snapshot.rows,
        reference=reference.name,
        model_version=scored.model_version if scored else None,
        findings=findings,
        distributions=distributions,
        vocabulary_version=snapshot.vocabulary_version,
    )


def write_drift(tables: Tables, pipeline: str, as_of: date, findings: Sequence[Finding], run_id: str) -> None:
    """Replace the rows of a pipeline and date in ``drift``.

    Raises:
        TableError: another version of gur_spark made the table, without a column ``name``.
    """
    names, more = schema.column_names(schema.DRIFT), {"name": pipeline, "as_of": as_of, "run_id": run_id}
    rows = [tuple((vars(finding) | more)[name] for name in names) for finding in findings]
    tables.create("drift", schema.DRIFT)
    tables.read("drift")  # refuses a table without the pipeline's name
    frame = tables.spark.createDataFrame(rows, schema.DRIFT).coalesce(1)
    tables.replace(frame, "drift", f"name = '{pipeline}' AND as_of = DATE '{as_of}'")


def measured_names(config: Config, manifest: Manifest) -> list[str]:
    """Names of the inputs that are measured of the snapshots that the pipeline's kind reads.

    Args:
        manifest: the manifest of aggregates.
    """
    columns = [column.name for column in manifest.columns]
    if find(config.model.kind).reads is not Form.SEQUENCES:
        return columns
    wanted = config.sequences
    sequences = sequence_manifest(manifest, wanted.window, wanted.max_events, wanted.fields)
    return [*columns, *measured_subjects(sequences)]


def _reference(
    tables: Tables, config: Config, snapshot: Snapshot, model: ModelVersion | None, against: date | None
) -> Reference:
    if against is not None:
        alike = find_snapshot(tables, config, against, snapshot.form, manifest=snapshot.manifest())
        return Reference.of_snapshot(alike)
    assert model is not None  # it is read unless a date is given
    return Reference.of_training(model)


def _distributions(tables: Tables, size: int, snapshot: Snapshot, reference: Reference) -> list[Distribution]:
    """Distributions of the inputs of about so many users on each side."""
    manifest = snapshot.manifest()
    _check_there(reference)
    columns = _measured_columns(manifest)
    share = -(-size // len(reference.paths))
    before = pa.concat_tables([_sample(tables, path, columns, share) for path in reference.paths])
    after = _sample(tables, snapshot.path, columns, size)
    # No id of the snapshot is unknown to its own vocabulary.
    other = reference.vocabulary_version != snapshot.vocabulary_version
    sizes = read_vocabulary(tables, reference.vocabulary_version).sizes if other else {}
    if isinstance(manifest, SequenceManifest):
        return list(compare_sequences(before, after, manifest, sizes))
    assert isinstance(manifest, Manifest)  # no kind reads another form
    return list(compare(before, after, manifest, sizes))


def _measured_columns(manifest: AnyManifest) -> list[str]:
    if isinstance(manifest, SequenceManifest):
        return measured_lists(manifest)
    assert isinstance(manifest, Manifest)  # no kind reads another form
    return measured_columns(manifest)


def _check_there(reference: Reference) -> None:
    """Raises SnapshotError where a folder of the reference is gone or damaged."""
    try:
        for path in reference.paths:
            read_manifest(path)
    except SnapshotError as error:
        raise SnapshotError(f"reference ({reference.name}): {error}; choose another with --against DATE") from error


def _sample(tables: Tables, path: str, columns: Sequence[str], size: int) -> pa.Table:
    rows = read_parquet(tables.spark, storage.join(path, "data"))
    return some_users(rows, _rows_of(path), size).select(*columns).toArrow()


def _rows(snapshot: Snapshot, reference: Reference) -> Measurement:
    """Number of users against the mean of the reference's snapshots."""
    before = sum(map(_rows_of, reference.paths)) / len(reference.paths)
    value, name = ratio(before, snapshot.rows), f"{before:,.0f} users in {reference.name}"
    return Measurement(kind="snapshot", subject="users", measure="rows_ratio", value=value, reference=name)


def _rows_of(path: str) -> int:
    """Number of rows by the footers of the files."""
    return sum(group.rows for group in row_groups(path))

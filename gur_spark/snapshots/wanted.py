"""The manifest of the snapshots that a configuration asks for, and the snapshot that has it."""

from datetime import date, datetime

from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError
from gur_spark.features.declare.manifest import AnyManifest
from gur_spark.features.spark import selection
from gur_spark.models.kind import Form
from gur_spark.snapshots import interactions, sequences
from gur_spark.snapshots.files import differing_columns
from gur_spark.snapshots.pivots import newest_manifest
from gur_spark.snapshots.visible import MADE_BY, Snapshot, visible_snapshots
from gur_spark.tables.delta import Tables


def wanted_manifest(tables: Tables, config: Config, form: Form) -> AnyManifest:
    """The manifest of a form of snapshot, as the configuration has it.

    Raises:
        ConfigError: the configuration has no section for the form, a field's name cannot stand in it, or the vocabulary
            lacks a value of a pivot.
        TableError: a pivot needs the vocabulary, and there is none yet.
    """
    events = config.manifest()
    if form == Form.SEQUENCES:
        return sequences.recipe_of(config.sequences, events).manifest
    if form == Form.INTERACTIONS:
        return interactions.recipe_of(config.interactions, events).manifest
    return newest_manifest(tables, config)


def find_snapshot(
    tables: Tables,
    config: Config,
    as_of: date,
    form: Form = Form.AGGREGATES,
    *,
    known_at: datetime | None = None,
    manifest: AnyManifest | None = None,
    vocabulary: tuple[int, str] | None = None,
) -> Snapshot:
    """The visible snapshot of a form and date.

    Several pipelines may share tables, so a date may have snapshots of several manifests and vocabularies.

    Args:
        known_at: the moment before which its rows had landed; by default the one of the configured delay.
        manifest: the manifest that it must have; by default the one of the configuration.
        vocabulary: version and hash of the vocabulary that it must have; by default any, and the one counts that was
            asked for last.

    Raises:
        TableError: there is no table ``snapshots`` yet.
        SnapshotError: there is no such snapshot; the message lists those of the form, or names the columns in which
            the newest of the date differs, or the vocabularies that there are.
    """
    known_at = known_at or selection.known_at(as_of, config.aggregates.delay_days)
    of_form = visible_snapshots(tables, form)
    found = [s for s in of_form if (s.as_of, s.known_at) == (as_of, known_at)]
    if not found:
        known = [f"{s.as_of} (known at {s.known_at:%Y-%m-%d %H:%M})" for s in of_form] or "none"
        raise SnapshotError(
            f"no snapshot of {as_of} of form {form}, known at {known_at:%Y-%m-%d %H:%M}; available: {known}; "
            f"run the {MADE_BY[form]} job"
        )
    wanted = manifest or wanted_manifest(tables, config, form)
    alike = [s for s in found if s.manifest_hash == wanted.hash]
    if not alike:
        whose = "the model version" if manifest else "the configuration"
        raise SnapshotError(
            f"the {form} of {as_of} and {whose} differ in {differing_columns(found[-1].manifest(), wanted)}; run the "
            f"{MADE_BY[form]} job, or use the configuration that made them"
        )
    fitting = [s for s in alike if vocabulary is None or s.vocabulary_hash == vocabulary[1]]
    if not fitting:
        assert vocabulary is not None  # without one every snapshot fits
        version, digest = vocabulary
        there = ", ".join(f"{s.vocabulary_version} ({s.vocabulary_hash})" for s in alike)
        raise SnapshotError(
            f"the {form} of {as_of} have vocabulary {there}, needed is vocabulary {version} ({digest}); run "
            f"{MADE_BY[form]} --as-of {as_of} --vocabulary {version}"
        )
    return fitting[-1]

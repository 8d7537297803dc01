"""The manifest of the snapshots that a configuration asks for, and the snapshots that have it."""

from datetime import date

from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError
from gur_spark.features.declare.manifest import AnyManifest
from gur_spark.models.kind import Form
from gur_spark.snapshots import interactions, sequences
from gur_spark.snapshots.files import differing_columns
from gur_spark.snapshots.visible import MADE_BY, Snapshot, find_snapshot
from gur_spark.tables.delta import Tables


def wanted_manifest(config: Config, form: Form) -> AnyManifest:
    """The manifest of a form of snapshot, as the configuration has it.

    Raises:
        ConfigError: the configuration has no section for the form, or a field's name cannot stand in it.
    """
    events = config.manifest()
    if form == Form.SEQUENCES:
        return sequences.recipe_of(config.sequences, events).manifest
    if form == Form.INTERACTIONS:
        return interactions.recipe_of(config.interactions, events).manifest
    return events


def find_wanted(tables: Tables, config: Config, as_of: date, form: Form) -> Snapshot:
    """Find the snapshot of a date as the configuration has it.

    Raises:
        SnapshotError: there is none, or it has other columns than the configuration.
    """
    wanted = wanted_manifest(config, form)
    found = find_snapshot(tables, config.aggregates, as_of, form=form, manifest_hash=wanted.hash)
    if found.manifest_hash != wanted.hash:
        differ = differing_columns(found.manifest(), wanted)
        raise SnapshotError(
            f"the {form} of {as_of} and the configuration differ in {differ}; run the {MADE_BY[form]} job, or use the "
            "configuration that made them"
        )
    return found

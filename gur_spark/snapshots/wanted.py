"""The manifest of the snapshots that a configuration asks for."""

from gur_spark.config.pipeline import Config
from gur_spark.features.declare.manifest import AnyManifest
from gur_spark.models.kind import Form
from gur_spark.snapshots import interactions, sequences


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

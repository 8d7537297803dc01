"""Inputs of a kind's preparation for training, on the Spark side."""

from collections.abc import Sequence
from dataclasses import dataclass

from gur_spark.config.pipeline import Config
from gur_spark.events.vocabulary import Vocabulary
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Tables, configuration and snapshots of one training."""

    tables: Tables
    config: Config
    snapshots: Sequence[Snapshot]
    """By date, of the form that the kind reads; of one manifest and vocabulary."""
    vocabulary: Vocabulary

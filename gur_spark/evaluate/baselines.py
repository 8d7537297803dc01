"""Baselines that are made from the sequences of the evaluated users."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from gur_spark.arrays import Array
from gur_spark.config.pipeline import Config
from gur_spark.errors import ConfigError, EvaluationError, MissingExtra, SnapshotError, TrainingError
from gur_spark.evaluate.baseline_inputs import sequence_folders
from gur_spark.evaluate.coles_baseline import train_coles
from gur_spark.evaluate.figures import COLES, HAND_MADE
from gur_spark.evaluate.hand_made import hand_made
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables


@dataclass(kw_only=True)
class Representations:
    """Further representations of the users of each date, and remarks on them for the report."""

    vectors: dict[str, list[Array]] = field(default_factory=dict)
    """Name -> one array (N, L) per date."""
    about: dict[str, str] = field(default_factory=dict)
    """Name -> a description, for representations that are not in every report."""
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, vectors: Mapping[str, list[Array]]) -> "Representations":
        return cls(vectors=dict(vectors))

    def with_(self, other: "Representations") -> "Representations":
        """Join two sets of representations."""
        return Representations(
            vectors=self.vectors | other.vectors,
            about=self.about | other.about,
            left_out=[*self.left_out, *other.left_out],
            notes=[*self.notes, *other.notes],
        )

    def at(self, number: int) -> dict[str, Array]:
        """Return the arrays of one date, by its position."""
        return {name: arrays[number] for name, arrays in self.vectors.items()}


def sequence_baselines(
    tables: Tables, config: Config, snapshots: Sequence[Snapshot], users: Sequence[pa.Array], width: int
) -> Representations:
    """Make hand-made statistics and CoLES embeddings for the users of each date.

    A baseline that cannot be made of the log is left out, with the reason.

    Args:
        snapshots: the aggregate snapshots of the dates. Sequences are made for the same dates and known times.
        users: the users of each date.
        width: width of the embedding; CoLES gets the same.
    """
    settings, found = config.evaluation, Representations()
    wanted = [*([HAND_MADE] if settings.hand_made else []), *([COLES] if settings.coles_epochs else [])]
    if not settings.hand_made:
        found.left_out.append(f"{HAND_MADE} (evaluation.hand_made is off)")
    if not settings.coles_epochs:
        found.left_out.append(
            f"{COLES} (evaluation.coles_epochs is 0; --coles-epochs 100 trains it until its validation loss stops)"
        )
    if not wanted:
        return found
    try:
        with sequence_folders(tables, config, snapshots) as folders:
            asked = list(zip(folders.by_date, users, strict=True))
            if HAND_MADE in wanted:
                found.vectors[HAND_MADE] = [hand_made(folder, some) for folder, some in asked]
            if COLES in wanted:
                made, said = train_coles(
                    folders.trained_on, asked, folders.vocabulary, width, config.training, settings.coles_epochs,
                    folders.work,
                )  # fmt: skip
                found.vectors[COLES] = made
                found.notes.append(said)
    except (EvaluationError, SnapshotError, ConfigError, TrainingError, MissingExtra) as error:
        # A report without these baselines is still a report. It says why they are missing.
        found.left_out += [f"{name} ({error})" for name in wanted if name not in found.vectors]
    return found

"""The ``models`` table: which versions there are and where their artefacts lie."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from pyspark.sql import functions as F

from gur_spark import storage
from gur_spark.config.pipeline import Config
from gur_spark.errors import ModelError, nearest
from gur_spark.registry.names import VersionName
from gur_spark.serving.publishing import published
from gur_spark.tables.delta import Tables


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """Where one row of ``models`` points."""

    model_version: str
    embeddings: str
    """The model_version of its rows in ``embeddings`` that are meant: its own, or that of their means."""
    path: str
    vocabulary_version: int
    vocabulary_hash: str
    training_snapshots: Sequence[str]
    """Their folders."""


def embeddings_name(tables: Tables, config: Config, version: str) -> str:
    """What ``read_embeddings`` takes for a version of the command line, where ``newest`` is one.

    Raises:
        ModelError: it is ``newest``, and there is no version.
    """
    return find_model(tables, config, version).embeddings if version == "newest" else version


def find_model(tables: Tables, config: Config, version: str | None = None) -> ModelVersion:
    """A version by name; ``newest``; or, with None, the published one (the newest before the first publish).

    The name may be that of a version's means over several dates (``serving.smoothing``). Of the newest version, means
    are meant where ``scoring.smoothing`` makes some.

    Raises:
        ModelError: there is no such version; the message lists those there are.
    """
    if version is None:
        switch = published(tables, config)
        version = switch.model_version if switch else "newest"
    rows = tables.read("models", made_by="train").orderBy(F.desc("created"), F.desc("model_version")).collect()
    named = VersionName.parse(version)
    for row in rows:
        if version in ("newest", row.model_version) or (named.base, named.space) == (row.model_version, None):
            newest = str(VersionName(row.model_version, mean_of=config.scoring.smoothing))
            found = {name: row[name] for name in ModelVersion.__dataclass_fields__ if name != "embeddings"}
            return ModelVersion(embeddings=newest if version == "newest" else version, **found)
    known = [row.model_version for row in rows]
    if named.space:
        raise ModelError(
            f"'{version}' is no model version, but the rows of {named.base} in the space of {named.space}; "
            f"name {named.base}"
        )
    raise ModelError(f"no model version '{version}'; available: {known}{nearest(version, known)}")


def seen_until(tables: Tables, version: str) -> date:
    """The first date whose events a version, or that of its means, was not trained on, by its card.

    ``date.min`` where that is not known: of no model here, or by a card of before it was kept.
    """
    rows = tables.read("models", made_by="train").select("model_version", "path").collect()
    paths = [row["path"] for row in rows if row["model_version"] in (version, VersionName.parse(version).base)]
    card = storage.join(paths[0], "card.json") if paths else ""
    seen = json.loads(storage.read_text(card)).get("seen_until") if card and storage.exists(card) else None
    return date.fromisoformat(seen) if seen else date.min

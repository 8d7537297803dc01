"""Older versions that a version's embeddings are also to be mapped to."""

from gur_spark.config.training import Scoring
from gur_spark.tables.delta import Tables


def asked_spaces(tables: Tables, scoring: Scoring, version: str) -> list[str]:
    """List the versions of ``scoring.in_space_of`` that were made before this one, without itself.

    A name that ``models`` does not have stays in the list, so that the mapping can refuse it.
    """
    asked = [old for old in scoring.in_space_of if old != version]
    if not asked or not tables.exists("models"):
        return asked
    rows = tables.read("models").select("model_version", "created").collect()
    created = {row["model_version"]: row["created"] for row in rows}
    return [old for old in asked if old not in created or created[old] <= created.get(version, created[old])]

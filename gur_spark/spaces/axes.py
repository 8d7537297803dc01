"""Spaces of versions: the version that defines the axes of an embedding."""

from gur_spark.registry.names import VersionName
from gur_spark.tables.delta import Tables


def space_of(tables: Tables, name: str) -> str:
    """Find the version that defines the axes of some rows.

    Mapped rows lead to the version that they were mapped to; a version leads to the one that it was aligned to, and so
    on to the end of the chain. Means of a version's embeddings have its axes.
    """
    rows = tables.read("models").select("model_version", "aligned_to").collect() if tables.exists("models") else []
    aligned_to = {row["model_version"]: row["aligned_to"] for row in rows}
    parsed = VersionName.parse(name)
    version = parsed.space or parsed.base
    while aligned_to.get(version):
        version = aligned_to[version]
    return version

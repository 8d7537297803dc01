"""The version whose axes a version's embeddings have."""

from gur_spark.registry.names import VersionName
from gur_spark.tables.delta import Tables


def space_of(tables: Tables, name: str) -> str:
    """The version at the end of the chain: the one that rows were mapped to, or the one that a version was aligned to,
    the one that this one was aligned to, and so on.

    Means of a version's embeddings have its axes.
    """
    rows = tables.read("models").select("model_version", "aligned_to").collect() if tables.exists("models") else []
    aligned_to = {row["model_version"]: row["aligned_to"] for row in rows}
    parsed = VersionName.parse(name)
    version = parsed.space or parsed.base
    while aligned_to.get(version):
        version = aligned_to[version]
    return version

"""What the rows of a version in the space of an older one are called, and for which older versions there are such."""

from gur_spark.config.pipeline import Config
from gur_spark.tables.delta import Tables

IN_SPACE_OF = "@"


def mapped_name(version: str, old: str) -> str:
    """The model_version of a version's embeddings in the space of an older one."""
    return f"{version}{IN_SPACE_OF}{old}"


def asked_spaces(tables: Tables, config: Config, version: str) -> list[str]:
    """Those of ``scoring.in_space_of`` that a version is to be mapped to: not itself, nor what was trained after it.

    A name that ``models`` does not have is among them, for who maps to it to refuse.
    """
    asked = [old for old in config.scoring.in_space_of if old != version]
    if not asked or not tables.exists("models"):
        return asked
    rows = tables.read("models").select("model_version", "created").collect()
    created = {row["model_version"]: row["created"] for row in rows}
    return [old for old in asked if old not in created or created[old] <= created.get(version, created[old])]

"""The section ``spark``: how a session is built."""

from pydantic import Field

from gur_spark.config.section import Section


class Spark(Section):
    """Size and address of a session; see ``gur_spark.session``."""

    cores: int = Field(ge=1)
    """Cores of the local session."""
    memory: str = Field(pattern=r"^\d+[mg]$")
    """Heap of the local driver, such as ``4g``."""
    shuffle_partitions: int = Field(ge=1)
    remote: str | None = None
    """Address of a Spark Connect server, ``sc://host:15002``."""
    conf: dict[str, str] = Field(default_factory=dict)
    """Further Spark settings, passed on unchanged."""

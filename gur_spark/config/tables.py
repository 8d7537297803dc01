"""The section ``tables``: where tables and folders are."""

from pydantic import ConfigDict, Field, model_validator

from gur_spark.config.section import Section


class Tables(Section):
    """Tables are folders under ``root``, or names under ``catalog.schema``.

    Snapshots and model artefacts are folders under ``root`` in both cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    root: str
    catalog: str | None = None
    database: str | None = Field(default=None, alias="schema")

    @model_validator(mode="after")
    def _both_or_neither(self) -> "Tables":
        if (self.catalog is None) != (self.database is None):
            raise ValueError("catalog and schema go together: give both, or neither")
        return self

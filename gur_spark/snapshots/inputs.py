"""The inputs of snapshots: one commit of ``events``, one vocabulary, and the fields of the logs."""

from dataclasses import dataclass
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from gur_spark.config.pipeline import Config
from gur_spark.errors import SnapshotError
from gur_spark.events.columns import check_columns_of_events
from gur_spark.events.sets import each_member
from gur_spark.events.vocabulary import Vocabulary, encode, read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.kind import Form
from gur_spark.snapshots.pivots import manifest_with_pivots
from gur_spark.tables.delta import Tables
from gur_spark.tables.lineage import Lineage


@dataclass(frozen=True, kw_only=True)
class SnapshotInputs:
    """The inputs that all snapshots of a run share."""

    manifest: Manifest
    """The manifest of aggregates, which names the fields and logs of events. Only for aggregates it has the columns of
    pivots."""
    vocabulary: Vocabulary
    events_id: str
    """Identity of the table ``events``."""
    events_version: int
    """The commit of ``events`` that is read."""
    users: str | None
    """Path of the list of users that get a row even without events."""

    @property
    def lineage(self) -> str:
        """Text of the ``Lineage``."""
        return str(Lineage(self.events_id, self.events_version, self.users))

    def events(self, tables: Tables) -> DataFrame:
        """The table ``events`` as it stood after the commit."""
        return tables.read("events", version=self.events_version)

    def encoded_attributes(self, rows: DataFrame) -> DataFrame | None:
        """Rows of user attributes with ids of their categories; None where no attribute is declared.

        A set of categories becomes one row per member.
        """
        if not self.manifest.attributes:
            return None
        rows = each_member(rows, self.manifest.separators)
        return encode(rows, self.vocabulary, self.manifest.attribute_categories)

    @classmethod
    def of(
        cls,
        tables: Tables,
        config: Config,
        vocabulary_version: int | None,
        users: str | None = None,
        form: Form = Form.AGGREGATES,
    ) -> "SnapshotInputs":
        """The inputs as the tables hold them now.

        Args:
            vocabulary_version: None is the newest.
            form: the form of the snapshots.

        Raises:
            TableError: ``events`` or ``vocabulary`` does not exist, or ``events`` was made by another configuration.
            ConfigError: the vocabulary lacks a value of a pivot of the aggregates.
        """
        check_columns_of_events(tables, config)
        vocabulary = read_vocabulary(tables, vocabulary_version)
        return cls(
            manifest=manifest_with_pivots(config, vocabulary) if form == Form.AGGREGATES else config.manifest(),
            vocabulary=vocabulary,
            events_id=tables.identity("events"),
            events_version=tables.version("events"),
            users=users,
        )


def check_landings(as_of: date, landed: date | None, gap_days: int) -> None:
    """Refuse a date that the landings have not reached: missing files would pass for silent users.

    Args:
        landed: the newest landing that has events before the date.

    Raises:
        SnapshotError: it is more than ``gap_days`` before the date.
    """
    if landed and (as_of - landed).days > gap_days:
        raise SnapshotError(
            f"as_of {as_of} is {(as_of - landed).days} days after the newest landing with events before it, {landed}; "
            f"aggregates.landing_gap_days allows {gap_days}: ingest what is missing, or raise it"
        )


def events_range(tables: Tables) -> str:
    """The times and landings that ``events`` covers, as part of a message."""
    found = (
        tables.read("events")
        .agg(F.min("event_time"), F.max("event_time"), F.min("landed_on"), F.max("landed_on"))
        .first()
    )
    assert found is not None
    return f"events run from {found[0]} to {found[1]}, landed from {found[2]} to {found[3]}"

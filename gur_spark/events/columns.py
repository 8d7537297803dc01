"""Check that the tables ``events`` and ``items`` have the columns that the configuration declares."""

from gur_spark.config.columns import categories, numbers
from gur_spark.config.pipeline import Config
from gur_spark.errors import TableError
from gur_spark.tables.delta import Tables


def check_columns_of_events(tables: Tables, config: Config) -> None:
    """Refuse a table without a declared field, and a table of several logs where only one is declared.

    In the second case, rows of the other logs would be replaced together with a landing and be counted as events.

    Raises:
        TableError: the table was made by another configuration.
    """
    there, name = tables.read("events", made_by="ingest").columns, tables.sql_name("events")
    lacking = [column for column in config.event_columns if column not in there]
    if lacking:
        raise TableError(
            f"{name} has no column {', '.join(lacking)}: it was made before the configuration declared them; ingest "
            "into another tables.root (or schema), or add them with ALTER TABLE"
        )
    if "source" in there and len(config.all_logs) == 1:
        raise TableError(
            f"{name} has the events of several logs, and the configuration declares one: give its logs, or use another "
            "tables.root (or schema)"
        )


def check_columns_of_items(tables: Tables, config: Config) -> None:
    """Refuse a table that lacks an attribute of items.

    Raises:
        TableError: it was made before the configuration declared the attribute.
    """
    there, logs = tables.read("items", made_by="ingest").columns, config.item_logs.values()
    lacking = [name for name in [*categories(logs), *numbers(logs)] if name not in there]
    if lacking:
        raise TableError(
            f"{tables.sql_name('items')} has no column {', '.join(lacking)}: it was made before the configuration "
            "declared them; ingest into another tables.root (or schema), or add them with ALTER TABLE"
        )

"""Choice of the vocabulary that a job encodes with."""

from gur_spark.config.pipeline import Config
from gur_spark.registry.known import find_model
from gur_spark.registry.published import published
from gur_spark.tables.delta import Tables


def chosen_vocabulary(tables: Tables, config: Config, given: str | None) -> int | None:
    """Return the vocabulary version that ``given`` names (a number, or ``newest``); None is the newest.

    The default is the vocabulary of the published model, so that a refit does not stop the daily scoring. Before the
    first publish it is the newest.
    """
    if given == "newest" or (given is None and published(tables, config.name) is None):
        return None
    return int(given) if given else find_model(tables, config).vocabulary_version

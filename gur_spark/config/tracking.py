"""The section ``tracking``: MLflow, beside the table ``models``."""

import os
from typing import Any

from gur_spark import storage
from gur_spark.config.section import Section

MLFLOW = "mlflow"
"""Instead of the section, or of its ``store``: the store is ``default_store``."""


class Tracking(Section):
    """Where versions are logged to MLflow; see ``gur_spark.registry.tracking``."""

    store: str
    """MLflow's tracking URI: ``sqlite:////data/mlflow.db``, ``http://mlflow:5000``, ``databricks``. A file may also
    say ``mlflow``."""
    name: str | None = None
    """Name of the experiment and the registered model; default: the pipeline's."""
    required: bool = False
    """``train`` fails where a version cannot be logged. The version is registered in ``models`` all the same."""


def with_store(given: Any, root: str | None) -> Any:
    """Put the store that the word ``mlflow`` stands for into a file's section ``tracking``.

    Args:
        root: ``tables.root``; None where it is not valid, which has an error of its own.

    Raises:
        ValueError: the value is neither the word, nor a mapping, nor null; or the word stands for no store.
    """
    section = {"store": MLFLOW} if given == MLFLOW else given
    if not (section is None or isinstance(section, dict | Tracking)):
        raise ValueError(f"expected '{MLFLOW}', a mapping with a store, or null")
    if isinstance(section, dict) and section.get("store") == MLFLOW and root is not None:
        return {**section, "store": default_store(root)}
    return section


def default_store(root: str) -> str:
    """MLflow's tracking URI where none is named: the environment's, else a database file in ``tables.root``.

    Raises:
        ValueError: the environment names none, and a database file cannot lie in this root.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    if not storage.is_local(root):
        raise ValueError(
            f"tables.root {root} is not a local path, where MLflow's database could lie: give tracking.store, such as "
            "http://mlflow:5000, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{storage.join(storage.absolute(root), 'mlflow.db')}"

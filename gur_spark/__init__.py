"""``gur_spark`` makes user embeddings and recommendations from raw event logs.

Packages are in the order of the data, and import only earlier ones (``tests/test_layers.py``): ``statistics`` and
``features`` (declared features, their states and the kernel), ``config``, ``tables``, ``events`` (raw -> canonical),
``snapshots`` (aggregates, sequences, interactions of a date), ``batches`` (Parquet -> torch), ``models`` (one folder
per family of kinds), ``registry`` (artefacts, names, the table ``models``), ``outputs``, ``spaces`` (alignment, mapping
and means of embeddings), ``training``, ``evaluate``, ``monitoring``, ``serving`` and ``consumers``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "describe_dimensions",
    "explain",
    "load_config",
    "nearest_users",
    "read_embeddings",
    "read_embeddings_now",
    "training_set",
]

_PUBLIC = {
    "describe_dimensions": "gur_spark.registry.dimensions",
    "explain": "gur_spark.snapshots.explanation",
    "load_config": "gur_spark.config.file",
    "nearest_users": "gur_spark.consumers.neighbours",
    "read_embeddings": "gur_spark.outputs.embeddings",
    "read_embeddings_now": "gur_spark.outputs.embeddings",
    "read_item_embeddings": "gur_spark.outputs.recommendations",
    "read_recommendations": "gur_spark.outputs.recommendations",
    "training_set": "gur_spark.consumers.point_in_time",
}


def __getattr__(name: str) -> Any:
    # Imported on use, because the torch side must be importable without pyspark, and the reverse.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gur_spark' has no attribute '{name}'")

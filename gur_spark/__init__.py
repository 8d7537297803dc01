"""Raw event logs in, user embeddings out.

The package's own modules follow the path of the data: ``events`` (raw -> canonical), ``features`` (the kernel: events
-> windowed aggregates), ``snapshots`` (which dates, made from what, and where they lie), ``batches``, ``models`` and
``training`` (aggregates -> autoencoder), ``versions`` (artefacts, and spaces), ``serving`` (-> embeddings, published),
``evaluate``, ``monitoring`` and ``consumers``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["explain", "load_config", "nearest_users", "read_embeddings", "read_embeddings_now", "training_set"]

_PUBLIC = {
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
    # Resolved on use: the torch side must be importable without pyspark, and the reverse.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gur_spark' has no attribute '{name}'")

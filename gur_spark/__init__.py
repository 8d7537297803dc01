"""Raw event logs in, user embeddings out.

The package's own modules follow the path of the data: ``events`` (raw -> canonical),
``features`` (events -> windowed aggregates), ``batches`` and ``models`` (aggregates ->
autoencoder), ``scoring`` (-> embeddings), ``evaluate``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["explain", "load_config", "nearest_users", "read_embeddings", "read_embeddings_now", "training_set"]

_PUBLIC = {
    "explain": "gur_spark.explanation",
    "load_config": "gur_spark.config_file",
    "nearest_users": "gur_spark.neighbours",
    "read_embeddings": "gur_spark.publishing",
    "read_embeddings_now": "gur_spark.publishing",
    "training_set": "gur_spark.point_in_time",
}


def __getattr__(name: str) -> Any:
    # Resolved on use: the torch side must be importable without pyspark, and the reverse.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gur_spark' has no attribute '{name}'")

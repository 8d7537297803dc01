"""Raw event logs in, user embeddings out.

The package's own modules follow the path of the data: ``events`` (raw -> canonical),
``features`` (events -> windowed aggregates), ``batches`` and ``models`` (aggregates ->
autoencoder), ``scoring`` (-> embeddings), ``evaluate``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_config", "read_embeddings"]

_PUBLIC = {"load_config": "gur_spark.config", "read_embeddings": "gur_spark.publishing"}


def __getattr__(name: str) -> Any:
    # Resolved on use: the torch side must be importable without pyspark, and the reverse.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'gur_spark' has no attribute '{name}'")

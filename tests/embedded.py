"""Rows of ``embeddings`` without a model, for tests of their readers."""

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.tables.delta import Tables


def add(
    tables: Tables, version: str, day: date, ids: Any, x_NL: np.ndarray, kind: str = "long", events: Any = None
) -> None:
    """Append one row per id, of users with one event each if nothing else is said."""
    EMBEDDINGS.create(tables, kind)
    rows = {
        "user_id": pa.array(ids, pa.int64() if kind == "long" else pa.string()),
        "as_of": pa.array([day] * len(x_NL), pa.date32()),
        "model_version": [version] * len(x_NL),
        "embedding": pa.array(list(x_NL), pa.list_(pa.float32())),
        "events": pa.array([1] * len(x_NL) if events is None else events, pa.int64()),
    }
    write_deltalake(tables.folder("embeddings"), pa.table(rows), mode="append")

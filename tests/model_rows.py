"""Rows of ``models`` for tests: of a saved version, and bare ones."""

from datetime import UTC, datetime
from typing import Any

from gur_spark import schema
from gur_spark.registry.artefact import load_model
from gur_spark.registry.known import register
from gur_spark.tables.delta import Tables
from tests.versions import untrained_version


def registered_version(tables: Tables, pipeline: str, **given: Any) -> str:
    """An untrained version below ``artefacts`` with its row in ``models``; returns its folder."""
    path = untrained_version(tables.folder("artefacts"), **given)
    saved = load_model(path)
    register(tables, pipeline, saved.card, path, saved.manifest.hash, saved.vocabulary, saved.metrics)
    return path


def add_row(tables: Tables, version: str, **values: Any) -> None:
    """A row of ``models`` of which only some columns matter."""
    tables.create("models", schema.MODELS)
    row = {"pipeline": "test", "kind": "gur", "outputs": ["embeddings"], "metrics": {}, "training_snapshots": []}
    row |= {"created": datetime(2024, 1, 1, tzinfo=UTC), "model_version": version, **values}
    ordered = tuple(row.get(name) for name in schema.column_names(schema.MODELS))
    tables.append(tables.spark.createDataFrame([ordered], schema.MODELS).coalesce(1), "models")

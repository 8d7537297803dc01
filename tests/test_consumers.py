"""Guarantees for teams downstream: published rows by every way that the README shows, and refusals of publish."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from gur_spark import read_embeddings, schema
from gur_spark.errors import ModelError, SnapshotError, TableError
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.registry.artefact import LoadedModel
from gur_spark.registry.files import pack
from gur_spark.registry.known import find_model
from gur_spark.registry.published import Published, published
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import score_snapshot
from gur_spark.serving.workers import load_once, score_batch
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables

pytestmark = pytest.mark.slow

AS_OF = date(2025, 4, 1)


def plain(rows: Any) -> list[tuple[int, list[float]]]:
    return sorted((row["user_id"], list(row["embedding"])) for row in rows)


def vectors(model: LoadedModel, rows: pa.RecordBatch) -> np.ndarray:
    return np.stack(score_batch(model, rows, "embeddings")["embedding"].to_numpy(zero_copy_only=False))


def test_sql_deltalake_and_duckdb_read_the_rows_that_read_embeddings_gives(whole: Any) -> None:
    tables, config = whole
    expected = plain(read_embeddings(tables.spark, config).collect())
    in_sql = tables.spark.sql(f"""
        SELECT e.* FROM delta.`{tables.root}/embeddings` e
        JOIN (SELECT model_version, as_of FROM delta.`{tables.root}/published`
              WHERE name = 'demo' ORDER BY switched_at DESC LIMIT 1) p
          ON e.model_version = p.model_version AND e.as_of = p.as_of""")
    assert plain(in_sql.collect()) == expected
    switches = DeltaTable(f"{tables.root}/published").to_pyarrow_table()
    switch = switches.sort_by([("switched_at", "descending")]).slice(0, 1).to_pylist()[0]
    users = DeltaTable(f"{tables.root}/embeddings").to_pyarrow_table(
        filters=[("model_version", "=", switch["model_version"]), ("as_of", "=", switch["as_of"])]
    )
    assert plain(users.to_pylist()) == expected
    assert duckdb.sql("SELECT count(*), count(DISTINCT user_id) FROM users").fetchone() == (len(expected),) * 2


def test_scoring_again_replaces_its_own_date_and_version_only(whole: Any) -> None:
    tables, config = whole
    model, snapshot = find_model(tables, config), find_snapshot(tables, config, AS_OF)
    before = plain(read_embeddings(tables.spark, config).collect())
    score_snapshot(tables, config, find_snapshot(tables, config, date(2025, 3, 1)), model.path, "test")
    other = tables.read("embeddings").where(F.col("as_of") != F.lit(AS_OF)).count()
    score_snapshot(tables, config, snapshot, model.path, "test")
    assert tables.read("embeddings").where(F.col("as_of") != F.lit(AS_OF)).count() == other > 0
    assert plain(read_embeddings(tables.spark, config).collect()) == before


def test_an_embedding_does_not_depend_on_its_batch(whole: Any) -> None:
    tables, config = whole
    model = load_once(tuple(sorted(pack(find_model(tables, config).path).items())))
    rows = pq.read_table(find_snapshot(tables, config, AS_OF).data).combine_chunks().to_batches()[0]
    whole_batch = vectors(model, rows)
    for size in (1, 7, 50):
        parts = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
        made = [vectors(model, part) for part in parts]
        np.testing.assert_allclose(np.concatenate(made), whole_batch, atol=1e-6)


def test_a_snapshot_of_another_vocabulary_is_refused_by_name(whole: Any) -> None:
    from dataclasses import replace

    tables, config = whole
    other = replace(find_snapshot(tables, config, AS_OF), vocabulary_hash="other", vocabulary_version=9)
    with pytest.raises(ModelError, match=r"snapshot of 2025-04-01 has 9 \(other\); make it again with --vocabulary 1"):
        score_snapshot(tables, config, other, find_model(tables, config).path, "test")


def test_a_publish_without_rows_or_with_a_value_that_is_not_finite_switches_nothing(
    whole: Any, make_config: Any
) -> None:
    tables, config = whole
    with pytest.raises(TableError, match=r"no embeddings of gone at 2025-04-01 to publish; available: \['gur-"):
        publish(tables, config, "gone", AS_OF, "test")
    own = make_config()
    fresh = open_tables(tables.spark, own.tables)
    EMBEDDINGS.create(fresh, "long")
    rows = [(1, AS_OF, "v1", [0.0, 1.0], 3), (2, AS_OF, "v1", [0.0, float("nan")], 3), (1, AS_OF, "v2", [1.0], 3)]
    rows += [(1, AS_OF, "v3", [2.0], 3)]
    fresh.append(tables.spark.createDataFrame(rows, EMBEDDINGS.schema("long")), "embeddings")
    with pytest.raises(TableError, match="embeddings of v1 at 2025-04-01 were not published: 1 rows are broken"):
        publish(fresh, own, "v1", AS_OF, "test")
    assert published(fresh, own.name) is None
    with pytest.raises(TableError, match="nothing is published for pipeline 'test'"):
        read_embeddings(tables.spark, own)
    assert publish(fresh, own, "v2", AS_OF, "test").rows == {"embeddings": 1}
    assert read_embeddings(tables.spark, own).collect()[0].embedding == [1.0]
    # A clock that was a year ahead when v2 was published, and is set back: v3 is the last switch all the same.
    ahead = [(own.name, "v2", AS_OF, ["embeddings"], datetime.now(UTC) + timedelta(days=365), "", "")]
    fresh.append(tables.spark.createDataFrame(ahead, schema.PUBLISHED), "published")
    publish(fresh, own, "v3", AS_OF, "test")
    assert published(fresh, own.name) == Published(model_version="v3", as_of=AS_OF)


def test_a_model_or_a_date_that_is_not_there_names_those_that_are(whole: Any) -> None:
    tables, config = whole
    with pytest.raises(ModelError, match=r"no model version 'gur-x'; available: \['gur-"):
        find_model(tables, config, "gur-x")
    with pytest.raises(SnapshotError, match="no snapshot of 2024-01-01"):
        find_snapshot(tables, config, date(2024, 1, 1))


def test_a_job_that_fails_exits_with_1_and_says_why(
    tables: Tables, make_config: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import score

    make_config()
    assert score.main(["--config", str(tmp_path / "pipeline.yaml"), "--as-of", "2024-01-01"]) == 1
    assert "no model yet: no version was trained in these tables; run train --as-of DATE" in capsys.readouterr().err
    assert tables.read("runs").where("job = 'score' AND status = 'failed'").count() == 1

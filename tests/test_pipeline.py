"""The whole pipeline on a small demo log: in one process, killed and run again, over Spark Connect, and on Sail."""

import shutil
import signal
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gur_spark import read_embeddings
from gur_spark.config.pipeline import Config
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import record
from jobs import pipeline
from tests.beside import WITHOUT_JAVA, Begun, Ended, options, run_to_the_end
from tests.demo import run_pipeline

pytestmark = pytest.mark.slow


def content(tables: Tables) -> dict[str, Any]:
    """All rows without times, paths and version names: they are equal however often a pipeline was killed."""
    events = tables.read("events")
    embeddings = tables.read("embeddings")
    newest = tables.read("published").orderBy("switched_at").collect()[-1]
    key = f"model_version = '{newest.model_version}' AND as_of = DATE '{newest.as_of}'"
    vectors = embeddings.where(key).orderBy("user_id").collect()
    return {
        "events": sorted(map(str, events.collect())),
        "quarantine": sorted(
            map(str, tables.read("quarantine").select("landed_on", "reason", "field", "raw").collect())
        ),
        "vocabulary": sorted(map(str, tables.read("vocabulary").drop("created").collect())),
        "snapshots": sorted((str(r.as_of), r.rows, r.checksum) for r in tables.read("snapshots").collect()),
        "users": [r.user_id for r in vectors],
        "embeddings": np.array([r.embedding for r in vectors]),
        "as_of": str(newest.as_of),
    }


def assert_same_content(a: dict[str, Any], b: dict[str, Any]) -> None:
    np.testing.assert_allclose(a.pop("embeddings"), b.pop("embeddings"), atol=1e-6)
    assert a == b


def test_every_table_is_made_and_every_row_is_accounted_for(whole: tuple[Tables, Config], raw: Path) -> None:
    tables, config = whole
    runs = {row.job: row for row in tables.read("runs").collect()}
    assert set(runs) == {"ingest", "vocabulary", "aggregate", "train", "score", "publish", "evaluate", "pipeline"}
    assert {row.status for row in runs.values()} == {"succeeded"}
    counts = runs["ingest"].counts
    parts = ("accepted", "deduplicated", "filtered", "quarantined")
    assert counts["rows_read"] == sum(counts[p] for p in parts)
    assert tables.read("events").count() == counts["accepted"]
    assert tables.read("quarantine").count() == counts["quarantined"] > 0
    snapshot = tables.read("snapshots").where("as_of = DATE '2025-04-01'").collect()[0]
    assert read_embeddings(tables.spark, config).count() == snapshot.rows > 50


def test_the_report_compares_with_pca_raw_windows_and_a_random_encoder(whole: tuple[Tables, Config]) -> None:
    tables, _ = whole
    report = next(Path(tables.root, "reports").rglob("report.txt")).read_text()
    for word in ("churn", "persona", "PCA", "random", "raw"):
        assert word.lower() in report.lower()
    assert next(Path(tables.root, "reports").rglob("report.png")).stat().st_size > 10_000


def test_running_again_adds_nothing_but_a_new_model_version(whole: tuple[Tables, Config]) -> None:
    tables, config = whole
    before = content(tables)
    with record(tables, "pipeline", {}) as run:
        pipeline.stage(tables, config, Namespace(), run)
    assert_same_content(content(tables), before)
    assert tables.read("models").count() == 2


def test_a_pipeline_killed_at_two_commits_and_run_again_ends_in_the_same_tables(
    whole: tuple[Tables, Config], raw: Path, killed: "Begun[list[Ended]]"
) -> None:
    root, ended = killed
    for process in ended.result():
        assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    tables, _ = whole
    again, _ = run_pipeline(tables.spark, raw, root)
    assert_same_content(content(again), content(tables))


def test_the_pipeline_over_spark_connect_makes_the_same_tables(
    whole: tuple[Tables, Config], connected: "Begun[Ended]"
) -> None:
    root, ended = connected
    assert ended.result().returncode == 0, ended.result().stderr[-3000:]
    tables, _ = whole
    again = Tables(spark=tables.spark, root=str(root))
    assert_same_content(content(again), content(tables))


def test_the_pipeline_on_sail_makes_the_same_tables_without_java_and_spark_goes_on_with_them(
    whole: tuple[Tables, Config], raw: Path, sailed: "Begun[Ended]"
) -> None:
    root, ended = sailed
    assert ended.result().returncode == 0, ended.result().stderr[-3000:]
    tables, _ = whole
    made = Tables(spark=tables.spark, root=str(root))
    before = content(made)
    assert_same_content(dict(before), content(tables))
    again, _ = run_pipeline(tables.spark, raw, root)
    # The landings are known, and the snapshots are those that are there already.
    assert again.read("runs").where("job = 'ingest'").orderBy("started").collect()[-1].counts["files"] == 0
    assert_same_content(content(again), before)


def test_sail_goes_on_with_the_tables_of_spark(whole: tuple[Tables, Config], raw: Path, tmp_path: Path) -> None:
    tables, _ = whole
    root = tmp_path / "copy"
    shutil.copytree(tables.root, root)
    given = options(raw, root, "engine=sail")
    for job in (["ingest"], ["ingest", "--all"], ["aggregate", "--again"], ["score"]):
        done = run_to_the_end(f"jobs/{job[0]}.py", *given, *job[1:], env=WITHOUT_JAVA)
        assert done.returncode == 0, done.stderr[-3000:]
    copy = Tables(spark=tables.spark, root=str(root))
    files = [row.counts["files"] for row in copy.read("runs").where("job = 'ingest'").orderBy("started").collect()]
    # Spark reads again only when asked.
    assert files[-2:] == [0, files[0]]
    assert_same_content(content(copy), content(tables))

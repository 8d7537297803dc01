"""The whole pipeline on a small demo log: in one process, killed and run again, over Spark Connect, and on Sail."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
import pytest

from gur_spark import read_embeddings
from gur_spark.config import Config, Spark
from gur_spark.runs import record
from gur_spark.session import local_conf
from gur_spark.tables import Tables
from jobs import pipeline
from tests.demo import ROOT, overrides, run_pipeline
from tests.test_sail import WITHOUT_JAVA

pytestmark = pytest.mark.slow


def content(tables: Tables) -> dict[str, Any]:
    """What must be equal however often a pipeline was killed: all rows, without times, paths and version names."""
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


def java_conf() -> dict[str, str]:
    """A session's settings, for a Java that lives a minute: it would spend a quarter of its time on compiling well."""
    conf = local_conf(Spark(cores=2, memory="2g", shuffle_partitions=2))
    return conf | {"spark.driver.extraJavaOptions": f"{conf['spark.driver.extraJavaOptions']} -XX:TieredStopAtLevel=1"}


def options(raw: Path, root: Path, *more: str) -> list[str]:
    return ["--config", "conf/demo.yaml", *overrides(raw, root, *more)]


def run_to_the_end(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A process of its own group, so that it can kill its children with itself."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """Where the long processes of this module run, beside each other and its other tests."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def killed(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> tuple[Path, "Future[list[Any]]"]:
    """Tables that two pipelines left which were killed, and how they ended."""
    root = tmp_path_factory.mktemp("killed")

    key = "spark.driver.extraJavaOptions"
    given = options(raw, root, f"spark.conf={json.dumps({key: java_conf()[key]})}")

    def kill_both() -> list[Any]:
        moments = (("before", "events"), ("after", "models"))
        return [run_to_the_end("-m", "tests.killed", *moment, *given) for moment in moments]

    return root, elsewhere.submit(kill_both)


@pytest.fixture(scope="module")
def connected(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> tuple[Path, "Future[Any]"]:
    """The tables of a pipeline over Spark Connect, and how it ended."""
    root = tmp_path_factory.mktemp("connected")

    def run() -> subprocess.CompletedProcess[str]:
        with connect_server() as address:
            remote = options(raw, root, "engine=connect", f"spark.remote={address}")
            return run_to_the_end("jobs/pipeline.py", *remote)

    return root, elsewhere.submit(run)


@pytest.fixture(scope="module")
def sailed(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> tuple[Path, "Future[Any]"]:
    """The tables of a pipeline on Sail where there is no Java, and how it ended."""
    root = tmp_path_factory.mktemp("sailed")
    given = options(raw, root, "engine=sail")
    return root, elsewhere.submit(run_to_the_end, "jobs/pipeline.py", *given, env=WITHOUT_JAVA)


@contextmanager
def connect_server() -> Iterator[str]:
    """A Spark Connect server on this machine; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = java_conf()
    conf |= {"spark.connect.grpc.binding.port": str(port), "spark.connect.grpc.binding.address": "127.0.0.1"}
    home = Path(pyspark.__file__).parent
    server = subprocess.Popen(
        [
            str(home / "bin" / "spark-submit"),
            "--class",
            "org.apache.spark.sql.connect.service.SparkConnectServer",
            *[part for key, value in conf.items() for part in ("--conf", f"{key}={value}")],
            "spark-internal",
        ],
        env={**os.environ, "SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port)
        yield f"sc://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_for(port: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    pytest.fail(f"no Spark Connect server on port {port} after {seconds} s")


@pytest.mark.usefixtures("killed", "connected", "sailed")
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
    whole: tuple[Tables, Config], raw: Path, killed: tuple[Path, "Future[list[Any]]"]
) -> None:
    root, ended = killed
    for process in ended.result():
        assert process.returncode == -signal.SIGKILL, process.stderr[-3000:]
    tables, _ = whole
    again, _ = run_pipeline(tables.spark, raw, root)
    assert_same_content(content(again), content(tables))


def test_the_pipeline_over_spark_connect_makes_the_same_tables(
    whole: tuple[Tables, Config], connected: tuple[Path, "Future[Any]"]
) -> None:
    root, ended = connected
    assert ended.result().returncode == 0, ended.result().stderr[-3000:]
    tables, _ = whole
    again = Tables(spark=tables.spark, root=str(root))
    assert_same_content(content(again), content(tables))


def test_the_pipeline_on_sail_makes_the_same_tables_without_java_and_spark_goes_on_with_them(
    whole: tuple[Tables, Config], raw: Path, sailed: tuple[Path, "Future[Any]"]
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
    # What Spark had read is not read again but when it is asked for.
    assert files[-2:] == [0, files[0]]
    assert_same_content(content(copy), content(tables))

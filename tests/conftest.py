"""One Spark session for the whole suite, and the folder of the shared real data."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import beside, demo
from tests.beside import Begun, Ended

os.environ["TZ"] = "UTC"
# MLflow would report to its makers that it is used.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

BASE: dict[str, Any] = {
    "name": "test",
    # One process has one engine: the tests that hold on both run again on Sail in a process of their own.
    "engine": os.environ.get("GUR_SPARK_TEST_ENGINE", "local"),
    # Compiling a plan takes longer than running it on a handful of rows. The long form of a plan's text, which Spark
    # writes for its pages at every query, is a twelfth of what the driver does.
    "spark": {
        "cores": 2,
        "memory": "2g",
        "shuffle_partitions": 2,
        "conf": {
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            "spark.sql.ui.explainMode": "simple",
        },
    },
    "source": {"path": "unused"},
    "evaluation": {"seeds": 1, "coles_epochs": 0, "tasks": [{"kind": "churn"}]},
    # A handful of events leaves gaps.
    "aggregates": {"landing_gap_days": 3650},
    "fields": {
        "user_id": {"column": "user", "type": "long"},
        "event_time": {"column": "time", "format": "iso8601"},
        "categorical": [{"name": "mcc", "column": "mcc"}],
        "numeric": [{"name": "amount", "column": "amount", "step": 0.01}],
    },
}


def config_over(root: str | Path, **changes: Any) -> Any:
    """A checked config over this ``tables.root``, for fixtures that many tests share."""
    from omegaconf import OmegaConf

    from gur_spark.config.file import base_file, check

    values = OmegaConf.merge(OmegaConf.load(base_file()), BASE, {"tables": {"root": str(root)}}, changes)
    return check(OmegaConf.to_container(values), "tests")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A local session as the jobs get it."""
    from gur_spark.session import build_session

    session = build_session(config_over("unused"))
    yield session
    session.stop()


@pytest.fixture
def make_config(tmp_path: Path) -> Any:
    """``make_config({"aggregates": {"windows": [1]}})``: a checked config over a fresh ``tables.root``."""
    from gur_spark.config.file import load_config

    def make(changes: dict[str, Any] | None = None, *overrides: str) -> Any:
        from omegaconf import OmegaConf

        values = OmegaConf.merge(BASE, {"tables": {"root": str(tmp_path / "tables")}}, changes or {})
        file = tmp_path / "pipeline.yaml"
        file.write_text(yaml.safe_dump(OmegaConf.to_container(values)))
        return load_config(file, overrides)

    return make


@pytest.fixture
def tables(spark: Any, make_config: Any) -> Any:
    """The tables of ``make_config()``, empty."""
    from gur_spark.tables.open import open_tables

    return open_tables(spark, make_config().tables)


@pytest.fixture(scope="session")
def fitted(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``vocabulary`` fitted on a small log, to be copied: fitting it anew takes longer than a snapshot."""
    from gur_spark.events.vocabulary import fit_vocabulary
    from gur_spark.tables.open import open_tables
    from tests.test_snapshots import log, write

    config = config_over(tmp_path_factory.mktemp("fitted"), vocabulary={"min_count": 1})
    tables = open_tables(spark, config.tables)
    write(tables, log())
    fit_vocabulary(tables, config)
    return Path(tables.folder("vocabulary"))


@pytest.fixture
def vocabulary(tables: Any, fitted: Path) -> None:
    """``tables`` have the vocabulary of the small log."""
    shutil.copytree(fitted, tables.folder("vocabulary"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real event logs; tests that need it are skipped where it is not set."""
    folder = os.environ.get("GUR_SPARK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GUR_SPARK_DATA does not name the folder of the real event logs")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo log of 121 days of 120 users, broken, late and double rows included."""
    from gur_spark.synthetic.files import write

    folder = tmp_path_factory.mktemp("raw") / "log"
    write(folder, users=120, seed=1, days=121)
    return folder


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """Where the long processes of the suite run, one after the other, beside its tests."""
    pool = ThreadPoolExecutor(1)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session", autouse=True)
def begin_long_processes(request: pytest.FixtureRequest) -> None:
    """Begin those that the selected tests wait for, in the order in which they do."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in (
        "online_retail",
        "whole_process",
        "notebooks",
        "killed",
        "killed_stream",
        "connected",
        "sailed",
        "tests_on_sail",
    ):
        if name in wanted:
            # Without the real data, only the tests that need it are skipped.
            with suppress(pytest.skip.Exception):
                request.getfixturevalue(name)


@pytest.fixture(scope="session")
def online_retail(elsewhere: ThreadPoolExecutor, real_data: Path, tmp_path_factory: Any) -> "Begun[Ended]":
    """The tables of an ingest of Online Retail, and how it ended."""
    root = tmp_path_factory.mktemp("online_retail")
    return root, elsewhere.submit(beside.online_retail, real_data, root)


@pytest.fixture(scope="session")
def whole_process(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> "Begun[Ended]":
    """The tables of a pipeline over ``raw`` that nothing disturbed, and how it ended."""
    root = tmp_path_factory.mktemp("whole")
    return root, elsewhere.submit(beside.pipeline, raw, root)


@pytest.fixture(scope="session")
def whole(spark: Any, raw: Path, whole_process: "Begun[Ended]") -> Any:
    """Tables and config of a pipeline over ``raw`` that nothing disturbed."""
    from tests.demo import opened

    root, ended = whole_process
    assert ended.result().returncode == 0, ended.result().stderr[-3000:]
    return opened(spark, raw, root)


@pytest.fixture(scope="session")
def notebooks(elsewhere: ThreadPoolExecutor, whole_process: "Begun[Ended]") -> "dict[Path, Future[list[Any]]]":
    """Each notebook's errors, when it was run over the whole pipeline's tables."""
    # Two threads that import it at once find it half made.
    import nbclient  # noqa: F401

    root, _ = whole_process
    return {file: elsewhere.submit(beside.notebook, file, root) for file in beside.NOTEBOOKS}


@pytest.fixture(scope="session")
def killed(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> "Begun[list[Ended]]":
    """Tables that two pipelines left which were killed, and how they ended."""
    root = tmp_path_factory.mktemp("killed")
    return root, elsewhere.submit(beside.killed_pipelines, raw, root)


@pytest.fixture(scope="session")
def killed_stream(elsewhere: ThreadPoolExecutor, raw: Path, whole_process: Any, tmp_path_factory: Any) -> Any:
    """Tables that a stream was killed over and another went on with, and how the two ended."""
    root, landings = tmp_path_factory.mktemp("streamed"), tmp_path_factory.mktemp("landings")
    demo.land(raw, landings, date(2025, 5, 5), range(0, 7))
    return root, elsewhere.submit(beside.killed_stream, raw, whole_process[0], root, landings)


@pytest.fixture(scope="session")
def connected(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> "Begun[Ended]":
    """The tables of a pipeline over Spark Connect, and how it ended."""
    root = tmp_path_factory.mktemp("connected")
    return root, elsewhere.submit(beside.connected_pipeline, raw, root)


@pytest.fixture(scope="session")
def sailed(elsewhere: ThreadPoolExecutor, raw: Path, tmp_path_factory: Any) -> "Begun[Ended]":
    """The tables of a pipeline on Sail where there is no Java, and how it ended."""
    root = tmp_path_factory.mktemp("sailed")
    return root, elsewhere.submit(beside.pipeline_on_sail, raw, root)


@pytest.fixture(scope="session")
def tests_on_sail(elsewhere: ThreadPoolExecutor) -> "Future[Ended]":
    """How the tests of what both engines do ended on Sail."""
    return elsewhere.submit(beside.tests_on_sail)

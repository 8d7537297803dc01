"""One Spark session for the whole suite, and the folder of the shared real data."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ["TZ"] = "UTC"

BASE: dict[str, Any] = {
    "name": "test",
    # One process has one engine: the tests that hold on both run again on Sail in a process of their own.
    "engine": os.environ.get("GUR_SPARK_TEST_ENGINE", "local"),
    # Compiling a plan takes longer than running it on a handful of rows; the jobs that tests start compile theirs.
    "spark": {
        "cores": 2,
        "memory": "2g",
        "shuffle_partitions": 2,
        "conf": {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"},
    },
    "source": {"path": "unused"},
    "fields": {
        "user_id": {"column": "user", "type": "long"},
        "event_time": {"column": "time", "format": "iso8601"},
        "categorical": [{"name": "mcc", "column": "mcc"}],
        "numeric": [{"name": "amount", "column": "amount", "step": 0.01}],
    },
}


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A local session as the jobs get it."""
    from omegaconf import OmegaConf

    from gur_spark.config_file import base_file, check
    from gur_spark.session import build_session

    values = OmegaConf.merge(OmegaConf.load(base_file()), BASE, {"tables": {"root": "unused"}})
    session = build_session(check(OmegaConf.to_container(values), "tests"))
    yield session
    session.stop()


@pytest.fixture
def make_config(tmp_path: Path) -> Any:
    """``make_config({"aggregates": {"windows": [1]}})``: a checked config over a fresh ``tables.root``."""
    from gur_spark.config_file import load_config

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
    from gur_spark.tables import Tables

    return Tables.of(spark, make_config())


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
    from gur_spark import synthetic

    folder = tmp_path_factory.mktemp("raw") / "log"
    synthetic.write(folder, users=120, seed=1, days=121)
    return folder


@pytest.fixture(scope="session")
def whole(spark: Any, raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tables and config of a pipeline over ``raw`` that nothing disturbed."""
    from tests.demo import run_pipeline

    return run_pipeline(spark, raw, tmp_path_factory.mktemp("whole"))

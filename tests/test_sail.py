"""The engine without Java: the tests that hold on every engine hold on Sail, and its tables are Spark's tables."""

import os
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gur_spark.config.session import Spark
from gur_spark.errors import ConfigError
from gur_spark.session import NO_JAVA, local_session, sail_session
from tests.beside import Ended


@pytest.mark.skipif(os.environ.get("GUR_SPARK_TEST_ENGINE") == "sail", reason="these are the tests on Sail")
def test_what_both_engines_do_and_what_any_engine_does_passes_on_sail_without_java(
    tests_on_sail: "Future[Ended]",
) -> None:
    done = tests_on_sail.result()
    assert done.returncode == 0, done.stdout[-5000:]


def test_a_machine_without_java_is_offered_sail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="make run ENGINE=sail"):
        local_session({}, "test")
    assert "JDK 17 or 21" in NO_JAVA


def test_a_machine_without_pysail_is_told_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysail.spark", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(ConfigError, match="extra 'sail'"):
        # A number of cores that no other test starts a server with.
        sail_session(Spark(cores=1, memory="1g", shuffle_partitions=1))


def test_sail_knows_no_catalog(make_config: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folders only"):
        make_config({"engine": "sail", "tables": {"root": str(tmp_path), "catalog": "c", "schema": "s"}})
    with pytest.raises(ConfigError, match="folders only"):
        make_config({"engine": "sail", "source": {"format": "table", "table": "t", "layout": "bulk"}})

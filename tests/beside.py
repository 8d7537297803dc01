"""The long processes of the suite, which run one after the other beside its tests: those leave a core half idle."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyspark
import pytest

from gur_spark.config.session import Spark
from gur_spark.session import local_conf
from tests.demo import ROOT, overrides

T = TypeVar("T")
Ended = subprocess.CompletedProcess[str]
Begun = tuple[Path, Future[T]]
"""The folder of a process's tables, and what it gives when it ends."""

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A Java that lives a minute would spend half of it on compiling well. Its default cache for code is then too small.
SHORT_LIVED = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"}


WITHOUT_JAVA = {**{k: v for k, v in os.environ.items() if k != "JAVA_HOME"}, "PATH": "/nonexistent"}


def run_to_the_end(*command: str, env: Mapping[str, str] | None = None) -> Ended:
    """A process of its own group, so that it can kill its children with itself."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=env or os.environ | SHORT_LIVED,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


def options(raw: Path, root: Path, *more: str) -> list[str]:
    return ["--config", "conf/demo.yaml", *overrides(raw, root, *more)]


def pipeline(raw: Path, root: Path) -> Ended:
    return run_to_the_end("jobs/pipeline.py", *options(raw, root))


def killed_pipelines(raw: Path, root: Path) -> list[Ended]:
    moments = (("before", "events"), ("after", "models"))
    return [run_to_the_end("-m", "tests.killed", *moment, "pipeline", *options(raw, root)) for moment in moments]


def killed_stream(raw: Path, whole: Path, root: Path, landings: Path) -> list[Ended]:
    """Over a copy of a pipeline's tables: a stream that is killed in the middle of its micro-batch, and the next."""
    shutil.copytree(whole, root, dirs_exist_ok=True)
    given = [*options(raw, root, f"source.path={landings}"), "--once"]
    killed = run_to_the_end("-m", "tests.killed", "after", "events", "stream", *given)
    return [killed, run_to_the_end("jobs/stream.py", *given)]


def connected_pipeline(raw: Path, root: Path) -> Ended:
    with connect_server() as address:
        return run_to_the_end("jobs/pipeline.py", *options(raw, root, "engine=connect", f"spark.remote={address}"))


def pipeline_on_sail(raw: Path, root: Path) -> Ended:
    return run_to_the_end("jobs/pipeline.py", *options(raw, root, "engine=sail"), env=WITHOUT_JAVA)


def tests_on_sail() -> Ended:
    """The tests of what both engines do, and those that need no particular one, where there is no Java."""
    engine = WITHOUT_JAVA | {"GUR_SPARK_TEST_ENGINE": "sail"}
    chosen = "both_engines or any_engine"
    return run_to_the_end("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, "--durations=15", env=engine)


def online_retail(data: Path, root: Path) -> Ended:
    engine = os.environ.get("GUR_SPARK_TEST_ENGINE", "local")
    where = (f"source.path={data / 'online_retail'}", f"tables.root={root}")
    given = (*where, f"engine={engine}", "spark.memory=2g")
    return run_to_the_end("jobs/ingest.py", "--config", "conf/online_retail.yaml", *given)


def notebook(file: Path, root: Path) -> list[Any]:
    """The errors of a notebook that was run from top to bottom over these tables."""
    import nbformat
    from nbclient import NotebookClient

    given = {
        "GUR_SPARK_CONFIG": str(ROOT / "conf" / "demo.yaml"),
        "GUR_SPARK_OVERRIDES": f"tables.root={root} spark.memory=1g",
    }
    client = NotebookClient(nbformat.read(file, 4), timeout=300, resources={"metadata": {"path": str(file.parent)}})
    # In a thread, plain `execute` would leave its event loop open.
    asyncio.run(client.async_execute(env=os.environ | SHORT_LIVED | given))
    return [o for cell in client.nb.cells for o in cell.get("outputs", []) if o["output_type"] == "error"]


@contextmanager
def connect_server() -> Iterator[str]:
    """A Spark Connect server on this machine; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = local_conf(Spark(cores=2, memory="2g", shuffle_partitions=2))
    conf |= {"spark.connect.grpc.binding.port": str(port), "spark.connect.grpc.binding.address": "127.0.0.1"}
    home = Path(pyspark.__file__).parent
    places = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    server = subprocess.Popen(
        [
            str(home / "bin" / "spark-submit"),
            "--class",
            "org.apache.spark.sql.connect.service.SparkConnectServer",
            *[part for key, value in conf.items() for part in ("--conf", f"{key}={value}")],
            "spark-internal",
        ],
        env=os.environ | SHORT_LIVED | places,
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

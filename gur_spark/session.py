"""Building of Spark sessions for every engine.

Sessions of all engines use UTC and ANSI SQL, and Python workers run the interpreter of the driver. The few places where
engines differ ask ``gur_spark.engines``.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyspark
from pyspark.sql import SparkSession

from gur_spark.config.pipeline import Config
from gur_spark.config.session import Spark
from gur_spark.engines import mark_sail
from gur_spark.errors import ConfigError

# 4.4.1 has a Python package but no jar; the 4.2 in the name is Spark's version.
DELTA_JAR = "io.delta:delta-spark_4.2_2.13:4.4.0"

DELTA_CONF = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

RUNTIME_CONF = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
}

_SPARK_HOME = Path(pyspark.__file__).parent
SPARK_JARS = _SPARK_HOME / "jars"

NO_SAIL = "engine 'sail' needs pysail and deltalake: install gur_spark with the extra 'sail'"

CLASS_ARCHIVE = _SPARK_HOME / "gur_spark.jsa"
"""Archive of Java classes, which a session maps into memory at its start instead of loading them from the jars."""

NO_JAVA = (
    "no Java found: install a JDK 17 or 21 (Debian: apt-get install openjdk-17-jdk-headless), set JAVA_HOME, "
    "or do without: engine=sail on the command line (make run ENGINE=sail)"
)


def build_session(config: Config) -> SparkSession:
    """Build a session on the configured engine. An active session is reused.

    Raises:
        ConfigError: Java is missing for a local session, or pysail for Sail.
    """
    match config.engine:
        case "local":
            session = local_session(local_conf(config.spark) | config.spark.conf, config.name)
        case "sail":
            session = sail_session(config.spark)
        case "connect":
            session = SparkSession.builder.remote(config.spark.remote or "").getOrCreate()
        case "databricks":
            session = _databricks()
        case "spark":
            session = SparkSession.builder.getOrCreate()
    for key, value in RUNTIME_CONF.items():
        session.conf.set(key, value)
    if config.engine != "local":
        for key, value in config.spark.conf.items():
            session.conf.set(key, value)
    return session


def local_conf(spark: Spark) -> dict[str, str]:
    """Settings of a small local session, and of the Connect server that tests start."""
    delta = {} if has_delta() else {"spark.jars.packages": DELTA_JAR}
    return {
        **delta,
        **DELTA_CONF,
        **RUNTIME_CONF,
        "spark.master": f"local[{spark.cores}]",
        "spark.driver.memory": spark.memory,
        "spark.driver.extraJavaOptions": _java_options(),
        "spark.sql.shuffle.partitions": str(spark.shuffle_partitions),
        # With Delta's default, reading a log of ten lines takes 50 tasks.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.databricks.delta.retentionDurationCheck.enabled": "true",
        # HotSpot interprets methods above 8,000 bytes, so wide generated code would run at half the speed.
        "spark.sql.codegen.hugeMethodLimit": "8000",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": str(spark.cores),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }


def _java_options() -> str:
    """Options for the Java of a local session."""
    # Jobs need throughput and no short pauses. Ingest is a tenth faster than with Java's default collector.
    options = ["-Duser.timezone=UTC", "-XX:+UseParallelGC"]
    if CLASS_ARCHIVE.exists():
        # Java ignores an archive of another Java or of other jars, and need not say so.
        options += [f"-XX:SharedArchiveFile={CLASS_ARCHIVE}", "-Xlog:disable", "-Xlog:all=error:stderr"]
    return " ".join(options)


def local_session(conf: Mapping[str, str], name: str) -> SparkSession:
    """A session in this process's own JVM.

    Raises:
        ConfigError: there is no Java.
    """
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise ConfigError(NO_JAVA)
    # Otherwise workers run the `python3` on PATH, which may be of another environment.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # The jars of another Spark do not fit this pyspark.
    os.environ["SPARK_HOME"] = str(_SPARK_HOME)
    # Avoids a warning about host names. A local session does not listen to the network.
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.appName(f"gur_spark {name}")
    for key, value in conf.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def sail_session(spark: Spark) -> SparkSession:
    """A session on a Sail server inside this process: Spark Connect without Java.

    Python kernels run in this process, too, with one thread per partition, so they share one interpreter.

    Raises:
        ConfigError: pysail or deltalake is not installed.
    """
    host, port = _sail_server(spark.cores).listening_address
    session = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    # Sail's own shuffles make one partition per core; the package reads this number and asks for partitions.
    session.conf.set("spark.sql.shuffle.partitions", str(spark.shuffle_partitions))
    mark_sail(session)
    return session


@cache
def _sail_server(cores: int) -> Any:
    """The only server of the process, which ends with it."""
    os.environ["SAIL_EXECUTION__DEFAULT_PARALLELISM"] = str(cores)
    # By default Sail logs every session and every task that it stops.
    os.environ.setdefault("RUST_LOG", "error")
    try:
        import deltalake  # noqa: F401
        from pysail.spark import SparkConnectServer
    except ImportError as error:
        raise ConfigError(NO_SAIL) from error
    server = SparkConnectServer()
    server.start(background=True)
    return server


def _databricks() -> SparkSession:
    try:
        from databricks.connect import DatabricksSession
    except ImportError:
        # On a cluster or serverless, the runtime already has a session.
        return SparkSession.builder.getOrCreate()
    session: SparkSession = DatabricksSession.builder.getOrCreate()
    return session


def has_delta() -> bool:
    """Whether Delta's jars are beside Spark's. If not, each session resolves them at its start."""
    return any(SPARK_JARS.glob("delta-spark_*.jar"))

"""Preparation of a machine, once after its packages are installed: ``python -m gur_spark.install``.

It copies Delta's jars beside Spark's, and writes the Java classes of a working session into an archive. Afterwards
sessions start faster and without a network. They also work without both steps.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from gur_spark.config.session import Spark
from gur_spark.errors import ConfigError
from gur_spark.session import CLASS_ARCHIVE, DELTA_JAR, SPARK_JARS, has_delta, local_conf, local_session
from gur_spark.tables.delta import Tables


def install_delta() -> None:
    """Resolve Delta's jars with Spark's own Ivy and copy those that Spark lacks.

    Raises:
        ConfigError: they could not be resolved.
    """
    if has_delta():
        return
    session = local_session({"spark.master": "local[1]", "spark.jars.packages": DELTA_JAR}, "install")
    resolved = [Path(address.removeprefix("file:")) for address in (session.conf.get("spark.jars") or "").split(",")]
    session.stop()
    present = {_artifact(jar.name) for jar in SPARK_JARS.glob("*.jar")}
    # The jar that `has_delta` looks for is copied last, so that a killed copy is made again.
    for jar in sorted(resolved, key=lambda jar: "_delta-spark_" in jar.name):
        # Ivy's file names are organisation_artifact-version.jar.
        name = jar.name.split("_", 1)[1]
        if _artifact(name) not in present:
            shutil.copy(jar, SPARK_JARS / name)
    if not has_delta():
        raise ConfigError(f"{DELTA_JAR} could not be resolved: is a Maven registry reachable?")


def _artifact(jar: str) -> str:
    """Artefact of a jar: ``delta-storage`` for ``delta-storage-4.4.0.jar``."""
    return re.split(r"-\d", jar, maxsplit=1)[0]


def archive_classes() -> None:
    """Write the Java classes of a session that did some work into an archive.

    The archive fits only this Java and these jars, so each call writes a new one. If that fails, a message is printed,
    and sessions start as slowly as before.
    """
    CLASS_ARCHIVE.unlink(missing_ok=True)
    # A process of its own, because its Java must have all jars from its start.
    done = subprocess.run(
        [sys.executable, "-m", "gur_spark.install", "archive"], capture_output=True, text=True, check=False
    )
    if done.returncode or not CLASS_ARCHIVE.exists():
        print(f"no archive of Java classes; sessions start more slowly:\n{done.stderr[-2000:]}", file=sys.stderr)


def _work_and_archive() -> None:
    """Do some work in a session, and let its Java write the archive as it ends."""
    conf = local_conf(Spark(cores=2, memory="1g", shuffle_partitions=2))
    made = CLASS_ARCHIVE.with_suffix(".part")
    conf["spark.driver.extraJavaOptions"] += f" -Xlog:disable -XX:ArchiveClassesAtExit={made}"
    session = local_session(conf, "archive")
    gateway = session.sparkContext._gateway
    assert gateway is not None
    java = gateway.proc
    with tempfile.TemporaryDirectory() as folder:
        _do_some_work(session, Path(folder))
        session.stop()
    java.stdin.close()
    java.wait()
    # Java writes the archive as it ends. If it is killed meanwhile, only the part is left.
    made.rename(CLASS_ARCHIVE)


def _do_some_work(session: SparkSession, folder: Path) -> None:
    """Read and write files and Delta tables, shuffle, and run a Python kernel."""
    (folder / "log.csv").write_text("user,text\n1,a\n2,b\n")
    frame = session.read.option("header", True).csv(str(folder / "log.csv"))
    frame = frame.repartition("user").mapInArrow(lambda batches: batches, frame.schema)
    frame.write.parquet(str(folder / "parquet"))
    tables = Tables(spark=session, root=str(folder))
    tables.create("written", "user STRING, text STRING")
    tables.append(session.read.parquet(str(folder / "parquet")), "written")
    tables.replace(frame, "written", "user >= '0'")
    tables.read("written").groupBy("text").count().toPandas()


if __name__ == "__main__":
    if sys.argv[1:] == ["archive"]:
        _work_and_archive()
    else:
        install_delta()
        archive_classes()

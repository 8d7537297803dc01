"""Structured Streaming over the folders of landings: each micro-batch of new files calls one step.

The stream tells that files came, and does not read them. The step ingests new and changed files by the job's own rules.
A killed step is called again, and finds the remaining work.
"""

import json
from collections.abc import Callable, Mapping
from functools import reduce
from hashlib import sha256

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame

from gur_spark import storage
from gur_spark.config.logs import Log
from gur_spark.config.pipeline import Config
from gur_spark.config.source import Source
from gur_spark.errors import ConfigError, GurError
from gur_spark.tables.delta import Tables

_ENGINES = ("local", "databricks", "spark")
_FOLDERS = ("csv", "jsonl", "parquet", "orc", "avro")


def check_streaming(config: Config) -> None:
    """Refuse a configuration that cannot be streamed.

    Raises:
        ConfigError: the engine has no Structured Streaming in this process, there is no folder of landings, or means of
            several dates are to be served.
    """
    if config.engine not in _ENGINES:
        raise ConfigError(
            f"engine '{config.engine}' cannot stream: expected {' or '.join(_ENGINES)}. On another engine run ingest, "
            "aggregate and score as often as needed"
        )
    if not streamed_logs(config.all_logs):
        found = {name: f"{log.source.format}, {log.source.layout}" for name, log in config.all_logs.items()}
        raise ConfigError(f"no log can be streamed: expected files with source.layout 'daily', got {found}")
    if config.scoring.smoothing > 1:
        raise ConfigError(
            f"scoring.smoothing is {config.scoring.smoothing}: a stream serves embeddings as they are, expected 1"
        )


def streamed_logs(logs: Mapping[str, Log]) -> list[str]:
    """List the logs that land as dated files. The ingest job reads the others."""
    return [name for name, log in logs.items() if log.source.layout == "daily" and log.source.format in _FOLDERS]


def call_with_new_files(tables: Tables, config: Config, step: Callable[[], None], once: bool, seconds: float) -> None:
    """Call the step for new files; then end (``once``), or look again every ``seconds`` seconds for ever.

    Files are new if they came after the last step that ended. The stream keeps its position below ``tables.root``.

    Raises:
        GurError: a step raised it. It ends the stream, and a new start begins with that step.
    """
    raised: list[GurError] = []

    def on_batch(_files: DataFrame, _number: int) -> None:
        try:
            step()
        except GurError as error:
            raised.append(error)
            raise

    sources = [config.all_logs[name].source for name in streamed_logs(config.all_logs)]
    files = reduce(DataFrame.unionByName, [_new_files(tables, source) for source in sources])
    writer = files.writeStream.foreachBatch(on_batch)
    writer = writer.option("checkpointLocation", checkpoint(tables, config.name, config.all_logs))
    writer = writer.trigger(availableNow=True) if once else writer.trigger(processingTime=f"{seconds} seconds")
    try:
        writer.start().awaitTermination()
    except StreamingQueryException as error:
        if not raised:
            raise
        raise raised[0] from error


def checkpoint(tables: Tables, pipeline: str, logs: Mapping[str, Log]) -> str:
    """Return the folder with the position of the stream over these paths. Other paths have another folder.

    Nothing is lost with a new folder: the stream takes all files for new, and the step ingests by its own rules.
    """
    paths = [logs[name].source.path for name in streamed_logs(logs)]
    return tables.folder("stream", pipeline, sha256(json.dumps(paths).encode()).hexdigest()[:16])


def _new_files(tables: Tables, source: Source) -> DataFrame:
    reader = tables.spark.readStream.schema("value STRING").option("recursiveFileLookup", True)
    return reader.text(storage.absolute(source.path or ""))

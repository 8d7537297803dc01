"""The stream: each micro-batch leaves what a full run would, once, also when it was killed; what cannot be streamed."""

import signal
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from gur_spark import read_embeddings, read_embeddings_now
from gur_spark.aggregation import aggregate_snapshot
from gur_spark.config_file import load_config
from gur_spark.errors import ConfigError
from gur_spark.model_versions import find_model
from gur_spark.publishing import publish, select_embeddings
from gur_spark.runs import Run
from gur_spark.scoring import score_snapshot
from gur_spark.streaming import check_streaming
from gur_spark.tables import Tables
from jobs import stream
from tests.demo import ROOT, clients, land, opened

PUBLISHED = date(2025, 4, 1)


def vectors(frame: Any) -> dict[int, tuple[Any, ...]]:
    rows = frame.select("user_id", "as_of", "model_version", "embedding", "events").collect()
    assert len({row.user_id for row in rows}) == len(rows)
    return {row.user_id: (row.as_of, row.model_version, tuple(row.embedding), row.events) for row in rows}


def full_run(tables: Tables, config: Any, as_of: date) -> dict[int, tuple[Any, ...]]:
    """Every user's row by the usual jobs, of what has landed so far."""
    model = find_model(tables, config)
    snapshot = aggregate_snapshot(
        tables, config, as_of, Run(id=f"full{as_of}", job="", parameters={}), model.vocabulary_version
    )
    version = score_snapshot(tables, config, snapshot, model.path, Run(id="score", job="", parameters={}))
    return vectors(select_embeddings(tables, version, as_of))


@pytest.mark.slow
def test_a_stream_killed_in_a_micro_batch_goes_on_and_leaves_what_a_full_run_would(
    spark: Any, raw: Path, whole: tuple[Tables, Any], killed_stream: Any
) -> None:
    root, landings, ended = killed_stream
    killed, after = ended.result()
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert after.returncode == 0, after.stderr[-3000:]
    tables, config = opened(spark, raw, root)
    first, day = set(clients(raw, range(7))), date(2025, 5, 6)
    assert tables.read("events").count() == whole[0].read("events").count() + 14
    expected = full_run(tables, config, day)
    assert vectors(tables.read("embeddings_now")) == {user: expected[user] for user in first}
    assert {row.counts["users"] for row in tables.read("runs").where("job = 'stream'").collect()} == {7}

    # A landing that comes again without a user and with others, and the next day's, in one micro-batch.
    following = config.model_copy(update={"source": config.source.model_copy(update={"path": str(landings)})})
    land(raw, landings, date(2025, 5, 5), range(3, 9))
    land(raw, landings, day, range(20, 22))
    stream.take_up(tables, following, {})
    next_day = full_run(tables, config, day + timedelta(days=1))
    touched = set(clients(raw, [0, 1, 2, 7, 8, 20, 21]))
    kept = first - touched
    now = {user: next_day[user] for user in touched} | {user: expected[user] for user in kept}
    assert vectors(tables.read("embeddings_now")) == now
    before = vectors(read_embeddings(spark, config))
    assert vectors(read_embeddings_now(spark, config)) == before | now
    version = tables.version("embeddings_now")
    stream.take_up(tables, following, {})
    assert tables.version("embeddings_now") == version

    # What is published replaces what stood beside an earlier date, and the next refresh drops it.
    publish(tables, config, find_model(tables, config).model_version, day, "test", force=True)
    assert vectors(read_embeddings_now(spark, config)) == expected | {user: next_day[user] for user in touched}
    land(raw, landings, day, range(20, 23))
    stream.take_up(tables, following, {})
    kept_rows = tables.read("embeddings_now").where(F.col("as_of") <= F.lit(day))
    assert kept_rows.isEmpty()
    assert set(vectors(tables.read("embeddings_now"))) == touched | set(clients(raw, [22]))


def test_what_cannot_be_streamed_is_refused_before_spark_starts(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "conf" / "demo.yaml")
    assert stream.main(["--config", config, "engine=sail"]) == 2
    assert "engine 'sail' cannot stream: expected local or databricks or spark" in capsys.readouterr().err
    for given, message in (
        (["source.layout=bulk", "dedupe={policy: none}"], "no log can be streamed.*'main': 'csv, bulk'"),
        (["scoring.smoothing=3"], "scoring.smoothing is 3"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_streaming(load_config(config, given))

"""The stream: each micro-batch leaves the rows of a full run, once, even if killed; configurations that are refused."""

import signal
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from gur_spark import read_embeddings, read_embeddings_now
from gur_spark.config.file import load_config
from gur_spark.errors import ConfigError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.models.kind import VocabularyRef
from gur_spark.outputs.embeddings import select_embeddings
from gur_spark.registry.known import find_model
from gur_spark.registry.published import published
from gur_spark.serving.live import refresh
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import score_snapshot
from gur_spark.serving.stale import Stale, stale_after
from gur_spark.serving.streaming import check_streaming, checkpoint
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from jobs import stream
from tests.conftest import config_over
from tests.demo import ROOT, clients, opened
from tests.model_rows import registered_version
from tests.test_snapshots import AS_OF, log, snapshot


def vectors(frame: Any) -> dict[int, tuple[Any, ...]]:
    rows = frame.select("user_id", "as_of", "model_version", "embedding", "events").collect()
    assert len({row.user_id for row in rows}) == len(rows)
    return {row.user_id: (row.as_of, row.model_version, tuple(row.embedding), row.events) for row in rows}


def full_run(tables: Tables, config: Any, as_of: date) -> dict[int, tuple[Any, ...]]:
    """Every user's row by the usual jobs, of what has landed so far."""
    model = find_model(tables, config)
    snapshot = aggregate_snapshot(tables, config, as_of, f"full{as_of}", model.vocabulary_version)
    done = score_snapshot(tables, config, snapshot, model.path, "score")
    return vectors(select_embeddings(tables, done.model_version, as_of))


@pytest.mark.slow
def test_a_stream_killed_in_a_micro_batch_goes_on_and_leaves_what_a_full_run_would(
    spark: Any, raw: Path, whole: tuple[Tables, Any], killed_stream: Any
) -> None:
    root, ended = killed_stream
    killed, after = ended.result()
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert after.returncode == 0, after.stderr[-3000:]
    tables, config = opened(spark, raw, root)
    first, day = set(clients(raw, range(7))), date(2025, 5, 6)
    assert tables.read("events").count() == whole[0].read("events").count() + 14
    expected = full_run(tables, config, day)
    assert vectors(tables.read("embeddings_now")) == {user: expected[user] for user in first}
    assert {row.counts["users"] for row in tables.read("runs").where("job = 'stream'").collect()} == {7}


@pytest.fixture
def published_day(tables: Tables, make_config: Any, tmp_path: Path, vocabulary: None) -> Any:
    """Config of a pipeline that published a day of the small log, by an untrained model; its landings are to come."""
    (tmp_path / "landings").mkdir()
    source, model = {"path": str(tmp_path / "landings")}, {"latent_dim": 4}
    config = make_config({"vocabulary": {"min_count": 1}, "source": source, "model": model})
    publish_untrained(tables, config, snapshot(tables, config, log()))
    return config


def publish_untrained(tables: Tables, config: Any, made: Snapshot) -> None:
    """Publish the embeddings that an untrained model makes of a snapshot."""
    vocabulary = VocabularyRef(version=1, hash=made.vocabulary_hash, sizes=read_vocabulary(tables).sizes)
    path = registered_version(
        tables, config.name, model=config.model, manifest=config.manifest(), vocabulary=vocabulary
    )
    version = score_snapshot(tables, config, made, path, "score").model_version
    publish(tables, config, version, made.as_of, "")


def land(tables: Tables, config: Any, folder: Path, day: date, *users: int) -> None:
    """A landing comes, once more or for the first time, with an event of each user, and the stream takes it up."""
    lines = ["user,time,mcc,amount", *(f"{user},{day}T10:00:00Z,a,{user}.50" for user in users)]
    (folder / "landings" / f"{day}.csv").write_text("\n".join(lines) + "\n")
    stream.take_up(tables, config, {})


@pytest.mark.any_engine
def test_landings_that_come_again_and_days_that_are_published_leave_what_a_full_run_would(
    tables: Tables, published_day: Any, tmp_path: Path
) -> None:
    config, spark = published_day, tables.spark
    tomorrow, day_after = AS_OF + timedelta(days=1), AS_OF + timedelta(days=2)

    land(tables, config, tmp_path, AS_OF, 1, 2, 900)
    first = full_run(tables, config, tomorrow)
    assert vectors(tables.read("embeddings_now")) == {user: first[user] for user in (1, 2, 900)}

    # The landing comes again without one of them and with another, and then the next day's.
    land(tables, config, tmp_path, AS_OF, 2, 900, 3)
    again = full_run(tables, config, tomorrow)
    assert vectors(tables.read("embeddings_now")) == {user: again[user] for user in (1, 2, 900, 3)}
    land(tables, config, tmp_path, tomorrow, 900)
    next_day = full_run(tables, config, day_after)
    now = {user: again[user] for user in (1, 2, 3)} | {900: next_day[900]}
    assert vectors(tables.read("embeddings_now")) == now
    assert vectors(read_embeddings_now(spark, config)) == vectors(read_embeddings(spark, config)) | now

    # With nothing new, nothing is written; what is published replaces what stood beside an earlier date.
    commit = tables.version("embeddings_now")
    stream.take_up(tables, config, {})
    assert tables.version("embeddings_now") == commit
    publish(tables, config, find_model(tables, config).model_version, tomorrow, "test", force=True)
    assert vectors(read_embeddings_now(spark, config)) == again | {900: next_day[900]}
    land(tables, config, tmp_path, tomorrow, 900, 4)
    assert vectors(tables.read("embeddings_now")).keys() == {900, 4}


@pytest.mark.any_engine
def test_users_whose_events_came_after_the_snapshot_that_is_published_are_taken_up_again(
    tables: Tables, published_day: Any, tmp_path: Path
) -> None:
    config, tomorrow = published_day, AS_OF + timedelta(days=1)
    land(tables, config, tmp_path, AS_OF, 1, 2)
    made = full_run(tables, config, tomorrow)
    land(tables, config, tmp_path, AS_OF, 1, 2, 3)
    publish(tables, config, find_model(tables, config).model_version, tomorrow, "test", force=True)
    stream.take_up(tables, config, {})
    late = {3: full_run(tables, config, tomorrow + timedelta(days=1))[3]}
    assert vectors(tables.read("embeddings_now")) == late
    assert vectors(read_embeddings_now(tables.spark, config)) == made | late

    # Another writer's commit says nothing of what its rows know: they are made anew.
    tables.replace(tables.read("embeddings_now").limit(0), "embeddings_now", "true", "tidied up by hand")
    stream.take_up(tables, config, {})
    assert vectors(tables.read("embeddings_now")) == late


@pytest.mark.any_engine
def test_each_of_two_pipelines_finds_its_own_rows_between_commits_of_the_other(
    tables: Tables, published_day: Any, tmp_path: Path
) -> None:
    config, tomorrow = published_day, AS_OF + timedelta(days=1)
    other = config.model_copy(
        update={"name": "other", "aggregates": config.aggregates.model_copy(update={"windows": (9, 40)})}
    )
    publish_untrained(tables, other, aggregate_snapshot(tables, other, AS_OF, "other", 1))
    land(tables, config, tmp_path, AS_OF, 1, 2)
    assert refresh(tables, other, "refresh").counts == {"users": 2, "rows": 2}
    land(tables, config, tmp_path, AS_OF, 1, 2, 3)
    assert refresh(tables, other, "again").counts == {"users": 1, "rows": 1}
    # The rows of the first are taken up from its own last commit.
    last = tables.read("runs").where("job = 'stream'").orderBy(F.desc("started")).first()
    assert last.counts["users"] == 1
    for one in (config, other):
        rows = tables.read("embeddings_now").where(F.col("model_version") == find_model(tables, one).model_version)
        expected = full_run(tables, one, tomorrow)
        assert vectors(rows) == {user: expected[user] for user in (1, 2, 3)}


@pytest.mark.any_engine
def test_a_landing_makes_what_is_published_stale_if_it_reaches_the_snapshot_of_that_pipeline(
    tables: Tables, published_day: Any
) -> None:
    config = published_day
    other = config.model_copy(update={"aggregates": config.aggregates.model_copy(update={"windows": (9, 400)})})
    aggregate_snapshot(tables, other, AS_OF, "other", 1)
    near, far = (str(AS_OF - timedelta(days=days)) for days in (20, 300))
    now = published(tables, config.name)
    assert now
    assert stale_after(tables, config, [near]) == Stale(
        snapshots=2,
        commands=[
            f"aggregate --as-of {AS_OF}",
            f"aggregate --as-of {AS_OF} (with the configuration of manifest {other.manifest().hash})",
        ],
        published=now,
    )
    reached = stale_after(tables, config, [far])
    assert (reached.snapshots, reached.published) == (1, None)


@pytest.mark.any_engine
def test_a_stream_of_other_paths_keeps_where_it_is_in_another_folder(spark: Any, make_config: Any) -> None:
    def folder(path: str, **changes: Any) -> str:
        config = make_config({"source": {"path": path}, **changes})
        return checkpoint(open_tables(spark, config.tables), config.name, config.all_logs)

    web = {"source": {"path": "web"}, "fields": config_over("").fields.model_dump(mode="json", exclude_none=True)}
    assert folder("old") == folder("old", vocabulary={"min_count": 9})
    assert len({folder("old"), folder("new"), folder("old", logs={"web": web})}) == 3


@pytest.mark.any_engine
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

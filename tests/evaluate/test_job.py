"""The evaluate job over real tables: its files, its refusals, and nothing from the future."""

import json
import re
from argparse import Namespace
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gur_spark import storage
from gur_spark.errors import ConfigError, EvaluationError, ModelError, SnapshotError
from gur_spark.evaluate.baseline_inputs import sequence_folders
from gur_spark.evaluate.report import Report
from gur_spark.evaluate.run import collect_inputs, folder_name, make_report
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.artefact import Origin
from gur_spark.registry.known import find_model
from gur_spark.registry.published import Published, published, switch
from gur_spark.schema import SNAPSHOTS
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import score_snapshot
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.files import read_vocabulary_ref, row_groups
from gur_spark.snapshots.wanted import find_snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run
from gur_spark.training.run import train_model
from jobs import evaluate
from tests import embedded
from tests.conftest import config_over
from tests.model_rows import registered_version
from tests.test_snapshots import write

pytestmark = pytest.mark.any_engine

AS_OF = date(2024, 6, 1)
MIDNIGHT = datetime(2024, 6, 1, tzinfo=UTC)
USERS, WIDTH = 80, 8


def new_run(name: str = "run") -> Run:
    return Run(id=name, job="test", parameters={})


def event(user: int, days: float) -> tuple[Any, ...]:
    """One event, ``days`` after as_of; odd users like another category."""
    time = MIDNIGHT + timedelta(days=days)
    return user, time, time.date(), "ab"[user % 2], 100 + user


# More events than CoLES's shortest slice has.
PAST = [event(user, -(1 + user % 5 + 6 * n)) for user in range(USERS) for n in range(8)]
# Every third user comes back within the week, and the log goes on until its end.
RETURNS = [event(user, 2) for user in range(0, USERS, 3)]
TASKS = [{"kind": "churn"}, {"kind": "volume", "of": "amount"}]
LOG = [*PAST, *RETURNS, event(500, 6.5)]


@pytest.fixture(scope="module")
def config(tmp_path_factory: Any) -> Any:
    folder = tmp_path_factory.mktemp("evaluate")
    text = "".join(f"{user},{'odd' if user % 2 else 'even'}\n" for user in range(USERS + 20))
    (folder / "labels.csv").write_text("client,kind\n" + text)
    label = {
        "name": "kind",
        "path": str(folder / "labels.csv"),
        "user_column": "client",
        "label_column": "kind",
    }
    return config_over(
        folder / "tables",
        vocabulary={"min_count": 1},
        model={"latent_dim": WIDTH},
        training={"epochs": 1, "device": "cpu", "validation_share": 0.3, "threads": 1},
        evaluation={"horizon_days": 7, "bootstrap": 20, "labels": [label], "tasks": TASKS},
    )


@pytest.fixture(scope="module")
def tables(spark: Any, config: Any) -> Tables:
    """Everything up to published embeddings."""
    tables = open_tables(spark, config.tables)
    write(tables, LOG)
    fit_vocabulary(tables, config)
    snapshot = aggregate_snapshot(tables, config, AS_OF, "first")
    made = train_model(tables, config, [AS_OF])
    score_snapshot(tables, config, snapshot, made.path, "score")
    publish(tables, config, made.version, AS_OF, "test")
    return tables


def report_of(tables: Tables, config: Any, version: str = "published") -> Report:
    return make_report(tables, config, collect_inputs(tables, config, [AS_OF], version))


def version_of(tables: Tables, config: Any) -> str:
    now = published(tables, config.name)
    assert now is not None
    return now.model_version


def test_a_report_is_written_below_the_model_and_the_date(tables: Tables, config: Any, capsys: Any) -> None:
    run = new_run()
    evaluate.stage(tables, config, Namespace(as_of=[AS_OF], model="published", seeds=2, coles_epochs=2), run)
    version = version_of(tables, config)
    folder = tables.folder("reports", version, "2024-06-01")
    assert run.outputs == {kind: f"{folder}/report.{kind}" for kind in ("json", "txt", "png", "html")}
    snapshot = find_snapshot(tables, config, AS_OF).path
    assert run.inputs == {"model": version, "aggregates 2024-06-01": snapshot}
    text = storage.read_text(run.outputs["txt"])
    assert capsys.readouterr().out == text + "\n"
    assert storage.read_bytes(run.outputs["png"]).startswith(b"\x89PNG")
    report = json.loads(storage.read_text(run.outputs["json"]))
    assert (report["users"], report["dimension"], report["dates"]) == (USERS, WIDTH, ["2024-06-01"])
    assert list(report["compared"]) == [
        *["raw windows", "PCA", "random encoder", "hand-made", "CoLES", "embedding", "raw + embedding"],
    ]
    assert (report["left_out"], report["seeds"]) == ([], 2)
    said = r"CoLES trained for (\d) epochs of (\d) step\(s\) \(.*\) on (\d+) users, (\d+)% of those with a sequence"
    trained = re.fullmatch(said, report["notes"].pop())
    assert trained
    assert int(trained[1]) <= 2
    assert 0 < int(trained[3]) < USERS
    assert int(trained[2]) == -(-int(trained[3]) // 64)
    assert int(trained[4]) == round(100 * int(trained[3]) / USERS)
    assert storage.read_text(run.outputs["html"]).startswith("<!doctype html>")
    assert not storage.folders(tables.folder("sequences"))
    assert not storage.folders(tables.folder("_staging"))
    assert report["notes"] == [
        "churn: a churned user was active and has no event, in the 7 days from 2024-06-01 on",
        "volume: sum of amount of active users, sign(y) log(1 + |y|), in the 7 days from 2024-06-01 on",
        "kind: 20 labelled users have no embedding and are left out",
    ]
    assert [task["name"] for task in report["tasks"]] == ["churn", "volume", "kind"]
    for task in report["tasks"]:
        assert USERS * 0.3 < task["test_users"] < USERS
        assert run.counts[f"{task['name']} test users"] == task["test_users"]


def test_a_snapshot_of_another_pipeline_at_the_date_changes_no_report(tables: Tables, config: Any) -> None:
    own = find_snapshot(tables, config, AS_OF)
    windows = config.aggregates.model_copy(update={"windows": (9, 40)})
    other = aggregate_snapshot(tables, config.model_copy(update={"aggregates": windows}), AS_OF, "other")
    assert other.path != own.path
    inputs = collect_inputs(tables, config, [AS_OF], "published")
    assert inputs.account.inputs[f"aggregates {AS_OF}"] == own.path
    assert [population.snapshot for population in inputs.populations] == [own.path]


def test_events_of_the_future_change_who_churned_and_nothing_that_is_known_before(tables: Tables, config: Any) -> None:
    before = report_of(tables, config)
    try:
        write(tables, [*LOG, *(event(user, 3) for user in range(0, USERS, 2) for _ in range(9))])
        aggregate_snapshot(tables, config, AS_OF, "second")
        after = report_of(tables, config)
    finally:
        write(tables, LOG)
        aggregate_snapshot(tables, config, AS_OF, "third")
    assert after.model_version == before.model_version
    assert after.of("kind") == before.of("kind")
    assert after.tasks[2] == before.tasks[2]
    assert after.tasks[0].classes["churned"] < before.tasks[0].classes["churned"]


def test_two_dates_make_one_report_of_their_own_answers(tables: Tables, config: Any) -> None:
    later = AS_OF + timedelta(1)
    try:
        write(tables, [*LOG, event(500, 7.5)])
        version = version_of(tables, config)
        path = find_model(tables, config, version).path
        for day in (AS_OF, later):
            score_snapshot(tables, config, aggregate_snapshot(tables, config, day, "run"), path, "score")
        run = new_run()
        asked = Namespace(as_of=[later, AS_OF], model=version, seeds=None, coles_epochs=2)
        evaluate.stage(tables, config, asked, run)
    finally:
        write(tables, LOG)
        aggregate_snapshot(tables, config, AS_OF, "run")
    report = json.loads(storage.read_text(run.outputs["json"]))
    assert run.outputs["json"] == tables.folder("reports", version, "2024-06-01_to_2024-06-02", "report.json")
    assert report["dates"] == ["2024-06-01", "2024-06-02"]
    assert {"hand-made", "CoLES"} <= report["compared"].keys()
    churned = "churn: a churned user was active and has no event, in the 7 days from"
    assert [f"{day}: {churned} {day} on" for day in report["dates"]] == [n for n in report["notes"] if churned in n]
    # CoLES learns once.
    assert len([note for note in report["notes"] if "trained for" in note]) == 1
    assert all(len(score["by_seed"]) == 2 for score in report["scores"])


@pytest.mark.parametrize(
    ("dates", "name"),
    [
        (["2024-06-01"], "2024-06-01"),
        (["2024-06-01", "2024-07-01"], "2024-06-01_to_2024-07-01"),
        (["2024-06-01", "2024-06-15", "2024-07-01"], "2024-06-01_to_2024-07-01_3_dates"),
    ],
)
def test_reports_on_more_dates_do_not_overwrite_those_on_fewer(dates: list[str], name: str) -> None:
    assert folder_name(dates) == name


def test_more_users_than_allowed_are_sampled_and_the_report_says_so(tables: Tables, config: Any) -> None:
    fewer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"max_users": 60})})
    report = report_of(tables, fewer)
    assert report.users == 60
    assert report.notes[-1] == f"a sample of 60 of {USERS} users (evaluation.max_users)"


def test_a_future_that_is_not_complete_is_refused(tables: Tables, config: Any) -> None:
    longer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"horizon_days": 8})})
    with pytest.raises(EvaluationError, match=r"from the landing of 2024-06-08 on, .* up to 2024-05-31 are"):
        report_of(tables, longer)


def test_what_a_killed_report_leaves_is_staged_where_clean_takes_it(tables: Tables, config: Any) -> None:
    with sequence_folders(tables, config, [find_snapshot(tables, config, AS_OF)]) as folders:
        [asked] = folders.by_date
        assert sum(group.rows for group in row_groups(asked)) == USERS
        assert not storage.folders(tables.folder("sequences"))
        [staged] = clean(tables, datetime.now(UTC) + timedelta(hours=1), dry_run=True)
        assert asked == folders.trained_on == storage.join(staged, str(AS_OF))
    assert not storage.folders(tables.folder("_staging"))


def test_baselines_learn_from_what_was_before_the_first_date_and_the_cutoff(tables: Tables, config: Any) -> None:
    first = find_snapshot(tables, config, AS_OF)
    later = replace(first, as_of=AS_OF + timedelta(1), known_at=first.known_at + timedelta(1))
    with sequence_folders(tables, config, [first, later]) as folders:
        assert folders.trained_on == folders.by_date[0] != folders.by_date[1]
        assert read_vocabulary_ref(folders.trained_on).hash == folders.vocabulary.hash == first.vocabulary_hash
    cutoff = AS_OF - timedelta(10)
    earlier = config.model_copy(update={"training": config.training.model_copy(update={"cutoff": cutoff})})
    with sequence_folders(tables, earlier, [first, later]) as folders:
        assert folders.trained_on not in folders.by_date
        rows = pq.read_table(f"{folders.trained_on}/data").to_pylist()
        assert {row["as_of"] for row in rows} == {int(datetime(2024, 5, 22, tzinfo=UTC).timestamp())}
        assert max(max(row["event_time"]) for row in rows) < int(datetime(2024, 5, 22, tzinfo=UTC).timestamp())


def other_pipeline(tables: Tables, config: Any, name: str, seen_until: date | None = AS_OF) -> str:
    """A version that another pipeline over the same tables made of the snapshot of the date."""
    snapshot = find_snapshot(tables, config, AS_OF)
    sizes = read_vocabulary(tables).sizes
    return Path(
        registered_version(
            tables,
            name,
            model=config.model,
            manifest=config.manifest(),
            vocabulary=VocabularyRef(version=1, hash=snapshot.vocabulary_hash, sizes=sizes),
            origin=Origin(snapshots=(), dates=(), seen_until=seen_until),
            metrics={"of": float(len(name))},
        )
    ).name


def beside(config: Any, *names: str) -> Any:
    settings = config.evaluation.model_copy(update={"beside": list(names), "hand_made": False})
    return config.model_copy(update={"evaluation": settings})


def test_published_embeddings_of_other_pipelines_stand_beside(tables: Tables, config: Any) -> None:
    made = other_pipeline(tables, config, "shop")
    switch(tables, "shop", Published(model_version=made, as_of=AS_OF), ("embeddings",), "first")
    left_out = report_of(tables, beside(config, "shop", "shopp")).left_out
    assert (
        f"shop ({made} was not scored at 2024-06-01; run score --config FILE --as-of 2024-06-01 with the file of "
        "pipeline 'shop')"
    ) in left_out
    [nobody] = [why for why in left_out if why.startswith("shopp")]
    assert nobody.startswith("shopp (nothing is published for this pipeline in these tables; pipelines that published:")
    assert nobody.endswith("; did you mean 'shop'?)")
    # One of its numbers tells churned users; some users have no row.
    came_back = [user for user in range(USERS) if user % 3 == 0]
    told = np.random.default_rng(0).normal(size=(USERS, 3))
    told[:, 1] = np.isin(np.arange(USERS), came_back)
    embedded.add(tables, made, AS_OF, np.arange(USERS)[:-5], told[:-5])
    report = report_of(tables, beside(config, "shop"))
    assert report.compared["shop"] == f"embeddings of {made}, published by pipeline shop"
    found = {s.representation: s for s in report.of("churn") if (s.model, s.metric) == ("logistic regression", "AUC")}
    assert found["shop"].value > 0.9
    assert {d.against for d in report.differences if d.task == "churn"} >= {"shop", "random encoder", "raw windows"}


def test_a_version_that_saw_what_followed_or_does_not_say_is_not_judged_nor_shown(tables: Tables, config: Any) -> None:
    late = other_pipeline(tables, config, "late", seen_until=AS_OF + timedelta(1))
    silent = other_pipeline(tables, config, "silent", seen_until=None)
    for name, version, error, said in (
        ("late", late, EvaluationError, f"{late} was trained on events before 2024-06-02: at 2024-06-01 it would be"),
        ("silent", silent, ModelError, f"the card of {silent} does not say until when its training saw events"),
    ):
        embedded.add(tables, version, AS_OF, range(USERS), np.random.default_rng(0).normal(size=(USERS, WIDTH)))
        switch(tables, name, Published(model_version=version, as_of=AS_OF), ("embeddings",), "first")
        with pytest.raises(error, match=said):
            report_of(tables, config, version)
        # Beside another pipeline's embeddings it is left out, and the rest of the report stays.
        [left_out] = [why for why in report_of(tables, beside(config, name)).left_out if why.startswith(name)]
        assert said in left_out


def test_an_embedding_too_narrow_for_coles_has_a_report_without_it(tables: Tables, config: Any) -> None:
    version = other_pipeline(tables, config, "narrow")
    embedded.add(tables, version, AS_OF, range(USERS), np.random.default_rng(0).normal(size=(USERS, 3)))
    settings = config.evaluation.model_copy(update={"coles_epochs": 1, "hand_made": False})
    report = report_of(tables, config.model_copy(update={"evaluation": settings}), version)
    assert "CoLES" not in report.compared
    [left_out] = [said for said in report.left_out if said.startswith("CoLES")]
    assert "latent_dim" in left_out


def test_a_snapshot_of_another_vocabulary_is_refused(tables: Tables, config: Any) -> None:
    try:
        rows = [row.asDict() | {"vocabulary_hash": "other"} for row in tables.read("snapshots").collect()]
        tables.replace(tables.spark.createDataFrame(rows, SNAPSHOTS), "snapshots", "true")
        with pytest.raises(
            SnapshotError, match=r"have vocabulary 1 \(other\).*run aggregate --as-of .* --vocabulary 1"
        ):
            report_of(tables, config)
    finally:
        aggregate_snapshot(tables, config, AS_OF, "fourth")


def test_without_a_date_the_job_asks_for_one(tables: Tables, config: Any) -> None:
    with pytest.raises(ConfigError, match="no as-of date: give --as-of DATE, or evaluation"):
        evaluate.stage(
            tables, config, Namespace(as_of=None, model="published", seeds=None, coles_epochs=None), new_run()
        )

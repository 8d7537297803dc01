"""The evaluate job over real tables: what it writes, what it refuses, and that it never looks ahead."""

import json
from argparse import Namespace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from gur_spark import storage
from gur_spark.errors import ConfigError, EvaluationError, ModelError
from gur_spark.evaluate.baseline_inputs import sequence_folders
from gur_spark.evaluate.report import Report
from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.schema import SNAPSHOTS
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import score_snapshot
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.visible import find_snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run
from jobs import evaluate, train
from tests.conftest import config_over
from tests.test_snapshots import write

pytestmark = pytest.mark.any_engine

AS_OF = date(2024, 6, 1)
MIDNIGHT = datetime(2024, 6, 1, tzinfo=UTC)
USERS = 80


def new_run(name: str = "run") -> Run:
    return Run(id=name, job="test", parameters={})


def event(user: int, days: float) -> tuple[Any, ...]:
    """One event, ``days`` after as_of; odd users like another category."""
    time = MIDNIGHT + timedelta(days=days)
    return user, time, time.date(), "ab"[user % 2], 100 + user


PAST = [event(user, -(1 + user % 5 + 6 * n)) for user in range(USERS) for n in range(3)]
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
        model={"latent_dim": 4},
        training={"epochs": 1, "device": "cpu", "validation_share": 0.3, "threads": 1},
        evaluation={"horizon_days": 7, "bootstrap": 20, "labels": [label], "tasks": TASKS},
    )


@pytest.fixture(scope="module")
def tables(spark: Any, config: Any) -> Tables:
    """Everything up to published embeddings."""
    tables = open_tables(spark, config.tables)
    write(tables, LOG)
    fit_vocabulary(tables, config, new_run())
    snapshot = aggregate_snapshot(tables, config, AS_OF, new_run("first"))
    made = train.train_model(tables, config, [AS_OF], new_run())
    score_snapshot(tables, config, snapshot, made.path, new_run())
    publish(tables, config, made.version, AS_OF, "test")
    return tables


def report_of(tables: Tables, config: Any) -> tuple[Report, Run]:
    run = new_run()
    return evaluate.evaluate_embeddings(tables, config, [AS_OF], "published", run), run


def test_a_report_is_written_below_the_model_and_the_date(tables: Tables, config: Any, capsys: Any) -> None:
    run = new_run()
    evaluate.stage(tables, config, Namespace(as_of=[AS_OF], model="published", seeds=2, coles_seconds=1), run)
    [version] = [row.model_version for row in tables.read("models").collect()]
    folder = tables.folder("reports", version, "2024-06-01")
    assert run.outputs == {kind: f"{folder}/report.{kind}" for kind in ("json", "txt", "png", "html")}
    assert run.inputs == {"snapshot": find_snapshot(tables, config, AS_OF).path, "model": version}
    text = storage.read_text(run.outputs["txt"])
    assert capsys.readouterr().out == text + "\n"
    assert storage.read_bytes(run.outputs["png"]).startswith(b"\x89PNG")
    report = json.loads(storage.read_text(run.outputs["json"]))
    assert (report["users"], report["dimension"], report["dates"]) == (USERS, 4, ["2024-06-01"])
    assert list(report["compared"]) == [
        *["raw windows", "PCA", "random encoder", "hand-made", "CoLES", "embedding", "raw + embedding"],
    ]
    assert (report["left_out"], report["seeds"]) == ([], 2)
    assert report["notes"].pop().endswith(f"on {USERS} users' events before 2024-06-01")
    assert storage.read_text(run.outputs["html"]).startswith("<!doctype html>")
    assert not storage.folders(tables.folder("sequences", "2024-06-01"))
    assert report["notes"] == [
        "churn: churned is who was active and has no event, in the 7 days from 2024-06-01 on",
        "volume: sum of amount of active users, sign(y) log(1 + |y|), in the 7 days from 2024-06-01 on",
        "kind: 20 labelled users have no embedding and are left out",
    ]
    assert [task["name"] for task in report["tasks"]] == ["churn", "volume", "kind"]
    for task in report["tasks"]:
        assert USERS * 0.3 < task["test_users"] < USERS
        assert run.counts[f"{task['name']} test users"] == task["test_users"]


def test_events_of_the_future_change_who_churned_and_nothing_that_is_known_before(tables: Tables, config: Any) -> None:
    before, _ = report_of(tables, config)
    try:
        write(tables, [*LOG, *(event(user, 3) for user in range(0, USERS, 2) for _ in range(9))])
        aggregate_snapshot(tables, config, AS_OF, new_run("second"))
        after, _ = report_of(tables, config)
    finally:
        write(tables, LOG)
        aggregate_snapshot(tables, config, AS_OF, new_run("third"))
    assert after.model_version == before.model_version
    assert after.of("kind") == before.of("kind")
    assert after.tasks[2] == before.tasks[2]
    assert after.tasks[0].classes["churned"] < before.tasks[0].classes["churned"]


def test_two_dates_make_one_report_of_their_own_answers(tables: Tables, config: Any) -> None:
    later = AS_OF + timedelta(1)
    try:
        write(tables, [*LOG, event(500, 7.5)])
        [version] = [row.model_version for row in tables.read("models").collect()]
        path = tables.read("models").first()["path"]  # type: ignore[index]
        for day in (AS_OF, later):
            score_snapshot(tables, config, aggregate_snapshot(tables, config, day, new_run()), path, new_run())
        run = new_run()
        asked = Namespace(as_of=[later, AS_OF], model=version, seeds=None, coles_seconds=1)
        evaluate.stage(tables, config, asked, run)
    finally:
        write(tables, LOG)
        aggregate_snapshot(tables, config, AS_OF, new_run())
    report = json.loads(storage.read_text(run.outputs["json"]))
    assert run.outputs["json"] == tables.folder("reports", version, "2024-06-01_to_2024-06-02", "report.json")
    assert report["dates"] == ["2024-06-01", "2024-06-02"]
    assert {"hand-made", "CoLES"} <= report["compared"].keys()
    churned = "churn: churned is who was active and has no event, in the 7 days from"
    assert [f"{day}: {churned} {day} on" for day in report["dates"]] == [n for n in report["notes"] if churned in n]
    # CoLES learns once, from what was before the first of them.
    assert [n.partition("before ")[2] for n in report["notes"] if "trained for" in n] == ["2024-06-01"]
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
    assert evaluate.folder_name(dates) == name


def test_more_users_than_allowed_are_sampled_and_the_report_says_so(tables: Tables, config: Any) -> None:
    fewer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"max_users": 60})})
    report, _ = report_of(tables, fewer)
    assert report.users == 60
    assert report.notes[-1] == f"a sample of 60 of {USERS} users (evaluation.max_users)"


def test_a_future_that_is_not_complete_is_refused(tables: Tables, config: Any) -> None:
    longer = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"horizon_days": 8})})
    with pytest.raises(EvaluationError, match=r"from the landing of 2024-06-08 on, .* up to 2024-05-31 are"):
        report_of(tables, longer)


def test_what_a_killed_report_leaves_is_staged_where_clean_takes_it(tables: Tables, config: Any) -> None:
    with sequence_folders(tables, config, [find_snapshot(tables, config, AS_OF)]) as folders:
        [asked] = folders.asked
        assert sum(group.rows for group in row_groups(asked)) == USERS
        assert not storage.folders(tables.folder("sequences"))
        [staged] = clean(tables, datetime.now(UTC) + timedelta(hours=1), dry_run=True)
        assert asked == folders.trained_on == storage.join(staged, str(AS_OF))
    assert not storage.folders(tables.folder("_staging"))


def test_a_snapshot_of_another_vocabulary_is_refused(tables: Tables, config: Any) -> None:
    try:
        rows = [row.asDict() | {"vocabulary_hash": "other"} for row in tables.read("snapshots").collect()]
        tables.replace(tables.spark.createDataFrame(rows, SNAPSHOTS), "snapshots", "true")
        with pytest.raises(ModelError, match="vocabulary"):
            report_of(tables, config)
    finally:
        aggregate_snapshot(tables, config, AS_OF, new_run("fourth"))


def test_without_a_date_the_job_asks_for_one(tables: Tables, config: Any) -> None:
    with pytest.raises(ConfigError, match="no as-of date: give --as-of DATE, or evaluation"):
        evaluate.stage(
            tables, config, Namespace(as_of=None, model="published", seeds=None, coles_seconds=None), new_run()
        )

"""A date measured from its tables: no drift is no alert, injected drift is named, a re-run replaces its own rows."""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from gur_spark import cli, schema
from gur_spark.errors import ConfigError, ModelError, SnapshotError, TableError
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.kind import Form
from gur_spark.monitoring.embeddings import ScoredDates, embedding_drift
from gur_spark.monitoring.findings import WORST_FIRST, exit_code, to_text, worst
from gur_spark.monitoring.freshness import freshness
from gur_spark.monitoring.monitor import monitor, write_drift
from gur_spark.monitoring.report import history
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.tables.runs import Run, record
from jobs import monitor as job
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows, write_snapshot
from tests.conftest import config_over

pytestmark = pytest.mark.any_engine

TRAINED, CALM, DRIFTED, OTHER = date(2024, 6, 1), date(2024, 6, 8), date(2024, 6, 15), date(2024, 6, 22)
USERS, WIDTH = 640, 6


def put(tables: Tables, table: str, ddl: str, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = pa.schema(Schema.from_json(tables.spark.createDataFrame([], ddl).schema.json()))
    write_deltalake(tables.folder(table), pa.Table.from_pylist(list(rows), schema=columns), mode="append")


def put_snapshot(tables: Tables, day: date, events: Any, manifest: Manifest, vocabulary: str = "v") -> str:
    path = write_snapshot(
        Path(tables.folder("aggregates", str(day), manifest.hash, vocabulary)), to_rows(events, manifest), manifest
    )
    row = {
        "form": "aggregates",
        "as_of": day,
        "known_at": datetime(day.year, day.month, day.day, tzinfo=UTC),
        "path": path,
        "manifest_hash": manifest.hash,
        "vocabulary_version": 1,
        "vocabulary_hash": vocabulary,
        "lineage": "",
        "rows": len(events),
        "checksum": str(day),
    }
    put(tables, "snapshots", schema.SNAPSHOTS, [row])
    return path


def put_embeddings(tables: Tables, day: date, x: np.ndarray, version: str = "one") -> None:
    rows = [
        {"user_id": n, "as_of": day, "model_version": version, "embedding": list(v), "events": 1}
        for n, v in enumerate(x)
    ]
    put(tables, "embeddings", EMBEDDINGS.schema("long"), rows)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Any:
    fields = {"categorical": [{"name": name, "column": name} for name in SIZES]}
    root = tmp_path_factory.mktemp("monitor") / "tables"
    return config_over(root, aggregates={"windows": [7, 30]}, fields=fields)


@pytest.fixture(scope="module")
def tables(spark: Any, config: Any) -> Tables:
    """A model trained on one snapshot; a calm week; one of amounts times three, half of the users and a frozen feed."""
    tables = open_tables(spark, config.tables)
    manifest = config.manifest()
    paths = {
        day: put_snapshot(tables, day, random_events(USERS, SIZES, ["amount"], seed, 30), manifest)
        for seed, day in enumerate((TRAINED, CALM))
    }
    drifted = random_events(USERS // 2, SIZES, ["amount"], 5, 30)
    tripled = [[e | {"amount": e["amount"] and e["amount"] * 3} for e in user] for user in drifted]
    put_snapshot(tables, DRIFTED, tripled, manifest)
    # Another pipeline over the same tables has snapshots with other columns.
    for day in (CALM, date(2024, 6, 19), OTHER):
        put_snapshot(tables, day, random_events(5, SIZES, ["amount"], 5, 30), tiny_manifest(windows=(7, 30, 90)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(USERS, WIDTH)) + 3 * rng.normal(size=(8, WIDTH))[np.arange(USERS) % 8]
    for day, moved in ((TRAINED, x), (CALM, x + 0.05 * rng.normal(size=x.shape)), (DRIFTED, x[: USERS // 2] * 1.3 + 2)):
        put_embeddings(tables, day, moved)
    put(
        tables,
        "models",
        schema.MODELS,
        [
            {
                "model_version": "one",
                "pipeline": config.name,
                "kind": "gur",
                "outputs": ["embeddings"],
                "path": paths[TRAINED],
                "manifest_hash": manifest.hash,
                "vocabulary_version": 1,
                "vocabulary_hash": "v",
                "training_snapshots": [paths[TRAINED]],
                "created": datetime(2024, 6, 2, tzinfo=UTC),
            }
        ],
    )
    values = [
        {"field": field, "value": None if id == 2 else f"{field} {id}", "id": id, "count": 1, "version": 1, "hash": "v"}
        for field, size in SIZES.items()
        for id in range(2, size)
    ]
    put(tables, "vocabulary", schema.VOCABULARY, values)
    days = [CALM - timedelta(n) for n in (1, 2, 9)]
    events = [
        {"user_id": n, "event_time": datetime(d.year, d.month, d.day, 5, tzinfo=UTC), "landed_on": d}
        for n, d in enumerate(days)
    ]
    # It lands after all dates.
    late = {"user_id": 9, "event_time": datetime(2024, 6, 7, tzinfo=UTC), "landed_on": date(2025, 1, 1)}
    put(tables, "events", config.events_schema(), [*events, late])
    return tables


def run() -> Run:
    return Run(id="run", job="monitor", parameters={})


def asked(day: date, **more: Any) -> Namespace:
    parser = ArgumentParser()
    job.options(parser)
    return Namespace(**vars(parser.parse_args([])) | {"as_of": [day]} | more)


def rows(tables: Tables, day: date) -> list[dict[str, Any]]:
    """By delta-rs, which reads a few rows sooner."""
    found = DeltaTable(tables.folder("drift")).to_pyarrow_table(filters=[("as_of", "=", day)])
    return found.sort_by([(name, "ascending") for name in ("kind", "subject", "measure")]).to_pylist()


def test_a_calm_week_is_ok_and_a_week_that_drifted_is_named_and_neither_touches_the_other(
    tables: Tables, config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calm = monitor(tables, config, CALM, "run")
    assert worst(calm.findings) != "alert", to_text(calm.findings)
    drifted = run()
    job.stage(tables, config, asked(DRIFTED), drifted)
    assert drifted.exit_code == 3
    first, before = rows(tables, DRIFTED), rows(tables, CALM)
    alerts = {
        (row["kind"], row["subject"], row["measure"]): row["reference"] for row in first if row["status"] == "alert"
    }
    expected = {
        ("feature", "amount_mean_30d", "psi"): "training of one",
        ("snapshot", "users", "rows_ratio"): f"{USERS} users in training of one",
        ("embedding", "embedding", "users_lost"): f"one at {CALM}",
        ("embedding", "embedding", "projections_psi"): f"one at {CALM}",
        ("embedding", "embedding", "domain_auc"): f"one at {CALM}",
        ("freshness", "log main", "event_days"): "newest 2024-06-07",
        ("freshness", "log main", "landing_days"): "newest 2024-06-07",
    }
    assert {key: alerts.get(key) for key in expected} == expected
    assert {subject.split("_")[0] for kind, subject, _ in alerts if kind == "feature"} == {"amount"}
    values = {(row["as_of"], row["subject"], row["measure"]): row["value"] for row in (*before, *first)}
    assert values[CALM, "log main", "event_days"] == 1
    assert values[DRIFTED, "log main", "event_days"] == 8
    assert values[DRIFTED, "users", "rows_ratio"] == 2
    assert values[DRIFTED, "embedding", "users_lost"] == 0.5
    assert values[DRIFTED, "embeddings", "embeddings_days"] == 0
    assert "amount_mean_30d" in Path(drifted.outputs[f"page {DRIFTED}"]).read_text()
    assert "amount_mean_30d  " in capsys.readouterr().out
    # Once more, of some users and without embeddings: exactly the rows of the date are replaced.
    few = config.model_copy(update={"monitor": config.monitor.model_copy(update={"sample": 500})})
    again = monitor(tables, few, CALM, "run", against=TRAINED, inputs_only=True)
    assert rows(tables, DRIFTED) == first
    kept = [(row["subject"], row["measure"]) for row in before if "embedding" not in row["subject"]]
    after = rows(tables, CALM)
    assert [(row["subject"], row["measure"]) for row in after] == kept
    assert {row["reference"] for row in after if row["kind"] == "feature"} == {f"snapshot {TRAINED}"}
    counted = {d.column: d.before_B.sum() for d in again.distributions}["events_7d"]
    assert 440 < counted < 560


def test_pipelines_that_share_tables_keep_their_own_rows_and_pages(tables: Tables, config: Any) -> None:
    other = config.model_copy(update={"name": "other"})
    for one in (config, other):
        job.stage(tables, one, asked(TRAINED, against=CALM, inputs_only=True), run())
    found = {row["name"] for row in rows(tables, TRAINED)}
    assert found == {config.name, "other"}
    assert set(history(tables, "other", CALM)["name"].to_pylist()) == {"other"}
    for name in found:
        assert name in Path(tables.folder("reports", "drift", name, str(TRAINED), "drift.html")).read_text()


def test_a_drift_table_without_the_pipelines_name_is_refused_with_the_way_out(spark: Any, make_config: Any) -> None:
    tables = open_tables(spark, make_config().tables)
    put(tables, "drift", schema.DRIFT.removeprefix("name STRING, "), [])
    with pytest.raises(TableError, match=r"drift.* has no column name: .*set tables\.root to a new place"):
        write_drift(tables, "test", CALM, [], "run")


def test_the_exit_code_tells_of_alerts_and_on_request_of_warnings() -> None:
    assert [exit_code(status, False) for status in WORST_FIRST] == [3, 0, 0]
    assert [exit_code(status, True) for status in WORST_FIRST] == [3, 3, 0]


def test_without_a_snapshot_freshness_is_written_and_existing_snapshots_are_named(tables: Tables, config: Any) -> None:
    day = date(2024, 6, 20)
    with pytest.raises(SnapshotError, match=f"no snapshot of {day} .*available.*{CALM}"):
        monitor(tables, config, day, "run")
    found = {(row["subject"], row["measure"]): (row["value"], row["status"]) for row in rows(tables, day)}
    assert found == {
        ("log main", "event_days"): (13, "alert"),
        ("log main", "landing_days"): (13, "alert"),
        ("snapshots", "snapshot_days"): (5, "warn"),
        ("embeddings", "embeddings_days"): (5, "warn"),
    }


def test_files_that_the_newest_ingest_left_out_are_a_warning(tables: Tables, config: Any) -> None:
    for lost in (3, 1):
        with record(tables, "ingest", {}) as made:
            made.counts["files_lost"] = lost
    read = Form.AGGREGATES, config.manifest().hash, None
    found = {m.measure: m.value for m in freshness(tables, config, CALM, read, None)}
    assert found["lost_files"] == 1
    [finding] = [f for f in monitor(tables, config, CALM, "run").findings if f.measure == "lost_files"]
    assert (finding.subject, finding.status) == ("log main", "warn")


def test_a_version_without_an_earlier_date_is_compared_with_the_published_one_without_axes(
    tables: Tables, config: Any
) -> None:
    put_embeddings(tables, CALM, np.random.default_rng(1).normal(size=(USERS, 2 * WIDTH)), version="two")
    switch = {
        "name": config.name,
        "model_version": "one",
        "as_of": TRAINED,
        "switched_at": datetime(2024, 6, 2, tzinfo=UTC),
    }
    put(tables, "published", schema.PUBLISHED, [switch])
    found = {
        m.measure: m
        for m in embedding_drift(tables, config.name, config.monitor, ScoredDates.read(tables, "two"), CALM)
    }
    assert set(found) == {"rows_ratio", "users_lost", "neighbours_lost"}
    assert {m.reference for m in found.values()} == {f"one at {TRAINED}"}
    assert found["neighbours_lost"].value > 0.9
    # The first embeddings have nothing to be compared with.
    assert list(embedding_drift(tables, config.name, config.monitor, ScoredDates("one", [TRAINED]), TRAINED)) == []


def test_each_log_has_a_freshness_of_its_own_and_of_attributes_only_landings_count(
    spark: Any, make_config: Any
) -> None:
    log = {
        "source": {"path": "unused"},
        "fields": {"user_id": {"column": "u"}, "event_time": {"column": "t", "format": "iso8601"}},
    }
    known = {**log, "kind": "attributes", "fields": {**log["fields"], "categorical": [{"name": "c", "column": "c"}]}}
    config = make_config({"logs": {"web": log, "customers": known, "shops": log}})
    tables = open_tables(spark, config.tables)
    landed = {"main": (CALM, 1), "web": (CALM, 4), "customers": (CALM, 2)}
    events = [
        {
            "user_id": 1,
            "source": name,
            "event_time": datetime(2024, 5, 1, tzinfo=UTC),
            "landed_on": day - timedelta(ago),
        }
        for name, (day, ago) in landed.items()
    ]
    put(tables, "events", config.events_schema(), events)
    age = float((CALM - date(2024, 5, 1)).days)
    read = Form.AGGREGATES, config.manifest().hash, None
    assert {(m.subject, m.measure): m.value for m in freshness(tables, config, CALM, read, None)} == {
        ("log main", "event_days"): age,
        ("log main", "landing_days"): 1,
        ("log web", "event_days"): age,
        ("log web", "landing_days"): 4,
        ("log customers", "landing_days"): 2,
        ("log shops", "event_days"): math.inf,
        ("log shops", "landing_days"): math.inf,
        ("snapshots", "snapshot_days"): math.inf,
    }


def test_snapshots_that_cannot_be_compared_are_refused(tables: Tables, config: Any) -> None:
    with pytest.raises(SnapshotError, match=rf"{OTHER} and the model version differ in .*amount_count_90d"):
        monitor(tables, config, OTHER, "run")
    with pytest.raises(SnapshotError, match="no snapshot of 2024-01-01"):
        monitor(tables, config, CALM, "run", against=date(2024, 1, 1))
    later = date(2024, 6, 29)
    put_snapshot(tables, later, random_events(5, SIZES, ["amount"], 5, 30), config.manifest())
    with pytest.raises(TableError, match=rf"no embeddings of one at {later}; available: \['{TRAINED}'.*--inputs-only"):
        monitor(tables, config, later, "run", against=CALM)
    with pytest.raises(ModelError, match=r"no model version 'two'; available: \['one'\]"):
        monitor(tables, config, CALM, "run", version="two")


def test_an_unknown_date_or_ignored_subject_is_refused_before_anything_starts(make_config: Any) -> None:
    with pytest.raises(ConfigError, match="no as-of date"):
        job.stage(None, make_config(), asked(CALM, as_of=None), run())  # type: ignore[arg-type]
    job.check(make_config({"monitor": {"ignore": ["amount_sum_7d", "log main", "users"]}}))
    with pytest.raises(
        ConfigError, match=r"monitor\.ignore: 'amount_summ_7d' is not measured.*did you mean 'amount_sum_7d'"
    ):
        job.check(make_config({"monitor": {"ignore": ["amount_summ_7d"]}}))
    of_sequences = {"monitor": {"ignore": ["amount_mean", "mcc", "recency_days"]}}
    job.check(make_config({**of_sequences, "model": {"kind": "coles"}}))
    with pytest.raises(ConfigError, match=r"monitor\.ignore: 'amount_mean' is not measured"):
        job.check(make_config(of_sequences))


def test_the_exit_code_of_a_run_is_that_of_its_process(
    spark: Any, make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_config()
    monkeypatch.setattr("gur_spark.session.build_session", lambda config: spark)

    def stage(tables: Tables, config: Any, args: Namespace, run: Run) -> None:
        run.exit_code = 3

    given = ["--config", str(tmp_path / "pipeline.yaml")]
    assert cli.main("monitor", "", stage, given, recorded=False) == 3

"""Training pairs: a snapshot's rows beside their future, and nothing that training must not see."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gur_spark import schema
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.config.pipeline import Config
from gur_spark.errors import EvaluationError, TrainingError
from gur_spark.evaluate.run import collect_inputs
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.cooccurrence import count_snapshots
from gur_spark.models.gur.pairs import check_horizon, write_pairs
from gur_spark.models.gur.settings import Future
from gur_spark.models.kind import TrainingInputs
from gur_spark.registry.artefact import load_model
from gur_spark.registry.card import seen_until_of
from gur_spark.registry.known import find_model
from gur_spark.serving.scoring import score_snapshot
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.cleaning import clean
from gur_spark.tables.delta import Tables
from gur_spark.training import run as training
from gur_spark.training.run import train_model
from tests.test_snapshots import AS_OF, event, log, run_id, write

pytestmark = pytest.mark.any_engine

HORIZON = 10
CUTOFF = AS_OF + timedelta(12)


def ahead(user: int, days: float, mcc: str | None, late: int = 0) -> Any:
    """An event after AS_OF that lands so many days late."""
    when = datetime(2024, 7, 1, tzinfo=UTC) + timedelta(days=days)
    return event(user, timedelta(days=-days), mcc, 100, landed=when.date() + timedelta(late))


FUTURE = [
    *[ahead(1, 0, "a"), ahead(1, 3, "a"), ahead(1, 9.99, None), ahead(2, 5, "b"), ahead(3, 9.5, "c", late=2)],
    # After the horizon, landed when training was over, of a user without a past.
    *[ahead(1, 10, "b"), ahead(4, 2, "a", late=11), ahead(50, 1, "a"), ahead(5, 14, "a")],
]


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config(
        {
            "vocabulary": {"min_count": 1},
            "model": {
                "latent_dim": 4,
                "loss": {"likelihood": 1, "future": 0.5},
                "future": {"horizon_days": HORIZON},
            },
            "training": {"epochs": 1, "device": "cpu", "validation_share": 0.3},
            "scoring": {"as_of": [str(CUTOFF)]},
        }
    )


@pytest.fixture
def snapshot(tables: Tables, config: Any) -> Snapshot:
    write(tables, log() + FUTURE)
    fit_vocabulary(tables, config)
    return aggregate_snapshot(tables, config, AS_OF, run_id())


def pairs(tables: Tables, config: Any, *snapshots: Snapshot) -> list[str]:
    return write_pairs(tables, config, snapshots, read_vocabulary(tables), tables.folder("pairs"))


def test_each_row_has_what_followed_until_the_horizon_and_had_landed_by_the_cutoff(
    tables: Tables, config: Any, snapshot: Snapshot
) -> None:
    [folder] = pairs(tables, config, snapshot)
    ids = {row.value: row.id for row in read_vocabulary(tables).frame.collect()} | {None: schema.MISSING_ID}
    rows = pq.read_table(Path(folder) / "data")
    own = pq.read_table(snapshot.data)
    came = ["future_events", "future_mcc_ids", "future_mcc_counts"]
    by_user = {row["user_id"]: row for row in rows.to_pylist()}
    # The snapshot's rows as they are, in each file in the order of the users.
    assert rows.drop_columns(came).sort_by("user_id").to_pylist() == own.sort_by("user_id").to_pylist()
    for file in (Path(folder) / "data").glob("*.parquet"):
        users = pq.read_table(file)["user_id"].to_pylist()
        assert users == sorted(users)
    for user, row in by_user.items():
        days = [(e[1], e[2], e[3]) for e in FUTURE if e[0] == user]
        end = datetime(2024, 7, 1, tzinfo=UTC) + timedelta(HORIZON)
        counts = Counter(ids[mcc] for time, landed, mcc in days if time < end and landed < CUTOFF)
        assert [row[name] for name in came] == [counts.total(), sorted(counts), [counts[i] for i in sorted(counts)]]
    batch = to_batch(
        rows.combine_chunks().to_batches()[0], Layout.of(snapshot.manifest(Manifest), read_vocabulary(tables).sizes)
    )
    assert batch.future is not None
    assert batch.future.events_B.tolist() == rows["future_events"].to_pylist()
    assert batch.future.histograms["mcc"].filled_M.tolist() == [n > 0 for n in rows["future_events"].to_pylist()]
    # A run that was killed later on finds them.
    before = (Path(folder) / "manifest.json").stat().st_mtime_ns
    assert pairs(tables, config, snapshot) == [folder]
    assert (Path(folder) / "manifest.json").stat().st_mtime_ns == before


def test_a_future_without_anybody_is_a_future(tables: Tables, make_config: Any, config: Any) -> None:
    write(tables, [*log(), ahead(60, 30, "a")])
    fit_vocabulary(tables, config)
    snapshot = aggregate_snapshot(tables, config, AS_OF, run_id())
    [folder] = pairs(tables, config, snapshot)
    rows = pq.read_table(Path(folder) / "data")
    assert rows.num_rows == snapshot.rows
    assert set(rows["future_events"].to_pylist()) == {0}


def test_a_future_past_the_cutoff_or_not_all_there_is_refused(tables: Tables, config: Any, snapshot: Snapshot) -> None:
    late = replace(snapshot, as_of=AS_OF + timedelta(3))
    with pytest.raises(
        TrainingError, match=r"from 2024-07-04 on reach past the cutoff .* 2024-07-13 .* up to 2024-07-03"
    ):
        pairs(tables, config, snapshot, late)
    free = config.model_copy(update={"scoring": config.scoring.model_copy(update={"as_of": []})})
    longer = free.model_copy(update={"model": free.model.model_copy(update={"future": Future(horizon_days=16)})})
    with pytest.raises(
        TrainingError, match=r"the 16 days from 2024-07-01 on are not all there: the log ends on 2024-07-15"
    ):
        pairs(tables, longer, snapshot)
    assert longer.training_cutoff is None
    assert len(pairs(tables, free, snapshot)) == 1


def test_a_model_of_both_losses_is_registered_with_its_snapshots(
    tables: Tables, config: Any, snapshot: Snapshot
) -> None:
    made = train_model(tables, config, [AS_OF])
    loaded = load_model(made.path)
    assert loaded.card.training_snapshots == (snapshot.path,)
    assert {"validation_likelihood", "validation_future"} <= loaded.metrics.keys()
    rows = pq.read_table(snapshot.data).combine_chunks().to_batches()[0]
    assert loaded.scorer.score(rows)["embeddings"].num_rows == snapshot.rows
    assert seen_until_of(loaded.card) == AS_OF + timedelta(HORIZON)
    # Another training may read the pairs: they go with ``clean``.
    [left] = Path(tables.folder("pairs")).iterdir()
    assert clean(tables, datetime.now(UTC) + timedelta(1)) == [str(left)]
    with pytest.raises(EvaluationError, match="was trained on events before 2024-07-11: at 2024-07-10"):
        judged_on(tables, config, date(2024, 7, 10), made.version)


def test_frozen_tables_are_counted_over_the_folders_of_pairs(
    tables: Tables, config: Any, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer columns than ids: otherwise the table is the identity.
    frozen = config.model.model_copy(update={"tables": "frozen", "embedding_dim": 2})
    config = config.model_copy(update={"model": frozen})
    given: list[TrainingInputs] = []

    def stop(_kind: Any, inputs: TrainingInputs, *_rest: Any, **_more: Any) -> None:
        given.append(inputs)
        raise TrainingError("far enough")

    monkeypatch.setattr(training, "train_version", stop)
    with pytest.raises(TrainingError, match="far enough"):
        train_model(tables, config, [AS_OF])
    [inputs] = given
    folders, together = list(inputs.folders), inputs.prepared
    assert folders == pairs(tables, config, snapshot)
    assert inputs.snapshots == (snapshot.path,)
    sizes = read_vocabulary(tables).sizes
    expected = count_snapshots(folders, snapshot.manifest(Manifest), sizes, config.training)
    assert together.keys() == expected.keys() == {"mcc"}
    assert expected["mcc"].nnz
    assert (together["mcc"] != expected["mcc"]).nnz == 0


def judged_on(tables: Tables, config: Config, day: date, version: str) -> None:
    made = aggregate_snapshot(tables, config, day, run_id())
    score_snapshot(tables, config, made, find_model(tables, config, version).path, "score")
    collect_inputs(tables, config, [day], version)


def test_landings_that_come_a_day_late_are_waited_for(tables: Tables, config: Any, snapshot: Snapshot) -> None:
    free = config.model_copy(update={"scoring": config.scoring.model_copy(update={"as_of": []})})
    days = free.model_copy(update={"model": free.model.model_copy(update={"future": Future(horizon_days=15)})})
    check_horizon(tables.read("events"), days, [AS_OF])
    late = days.model_copy(update={"aggregates": days.aggregates.model_copy(update={"delay_days": 1})})
    with pytest.raises(TrainingError, match="they are from the landing of 2024-07-16 on"):
        check_horizon(tables.read("events"), late, [AS_OF])


def test_events_after_the_cutoff_change_no_weight(tables: Tables, config: Any, snapshot: Snapshot) -> None:
    first = train_model(tables, config, [AS_OF])
    write(tables, [*log(), *FUTURE, *(ahead(user, 12.5, "c") for user in range(12))])
    again = train_model(tables, config, [AS_OF])
    assert first.version.rpartition("-")[2] == again.version.rpartition("-")[2]

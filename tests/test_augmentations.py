"""Augmentations: other views of a user, of another date or of disjoint halves of the events, never past the cutoff."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.errors import TrainingError
from gur_spark.events.vocabulary import read_vocabulary
from gur_spark.features.declare.manifest import Manifest
from gur_spark.models.gur.pairs import write_pairs
from gur_spark.models.gur.settings import Future
from gur_spark.registry.artefact import load_model
from gur_spark.registry.card import seen_until_of
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.training.run import train_model
from tests.test_snapshots import AS_OF, MIDNIGHT, event, log, run_id, write

pytestmark = [pytest.mark.any_engine, pytest.mark.usefixtures("vocabulary")]

EARLIER = AS_OF - timedelta(40)
# User 20 is only in the windows of the later date; user 21 has one event, which cannot be in both halves.
EVENTS = [*log(), *(event(20, timedelta(days=day), "a", 100) for day in range(1, 9)), event(21, timedelta(9), "b", 5)]


@pytest.fixture
def configure(make_config: Any) -> Any:
    def make(views: str, **loss: float) -> Any:
        return make_config(
            {
                "vocabulary": {"min_count": 1},
                "model": {
                    "latent_dim": 4,
                    "loss": loss or {"contrastive": 1.0},
                    "contrastive": {"views": views},
                },
                "training": {"epochs": 1, "device": "cpu", "validation_share": 0.3},
                "scoring": {"as_of": [str(AS_OF)]},
            }
        )

    return make


@pytest.fixture
def snapshots(tables: Tables, configure: Any) -> list[Snapshot]:
    write(tables, EVENTS)
    return aggregate_snapshots(tables, configure("dates"), [EARLIER, AS_OF], run_id()).snapshots


def paired(tables: Tables, config: Any, snapshots: list[Snapshot]) -> list[dict[int, dict[str, Any]]]:
    folders = write_pairs(tables, config, snapshots, read_vocabulary(tables), tables.folder("pairs"))
    return [
        {row["user_id"]: row for row in pq.read_table(Path(folder) / "data").sort_by("user_id").to_pylist()}
        for folder in folders
    ]


def test_a_row_of_a_date_has_the_users_row_of_the_other_date_beside_it(
    tables: Tables, configure: Any, snapshots: list[Snapshot]
) -> None:
    early, late = paired(tables, configure("dates"), snapshots)
    inputs = snapshots[0].manifest(Manifest).inputs
    own = [{row["user_id"]: row for row in pq.read_table(s.data).to_pylist()} for s in snapshots]
    for found, here, there in ((early, *own), (late, *reversed(own))):
        assert set(found) == set(here)
        for user, row in found.items():
            assert {name: row[name] for name in here[user]} == here[user]
            empty = {name: [] if "ids" in name or "counts" in name else None for name in inputs}
            assert {name: row[f"view1_{name}"] for name in inputs} == {n: there.get(user, empty)[n] for n in inputs}
    layout = Layout.of(snapshots[1].manifest(Manifest), read_vocabulary(tables).sizes)
    rows = pa.RecordBatch.from_pylist([late[20], late[1], late[1]])
    views = to_batch(rows, layout).views
    assert views is not None
    assert views.there_B.tolist() == [False, True, True]
    assert views.users_B.tolist() == [0, 1, 1]
    assert len(views.batches) == 1


def test_the_halves_of_a_users_events_are_disjoint_and_all_of_them(
    tables: Tables, configure: Any, snapshots: list[Snapshot]
) -> None:
    [rows] = paired(tables, configure("halves"), snapshots[1:])

    def half(user: int, time: datetime) -> int:
        micros = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        return 1 if md5(f"{user} {micros}".encode()).hexdigest()[0] < "8" else 2

    inside = [e for e in EVENTS if timedelta(0) < MIDNIGHT - e[1] <= timedelta(180) and e[2] < AS_OF]
    expected = Counter((e[0], half(e[0], e[1])) for e in inside)
    assert min(Counter(side for _, side in expected.elements()).values()) > 0.4 * len(inside)
    for user, row in rows.items():
        assert [row[f"view{n}_events_180d"] or 0 for n in (1, 2)] == [expected[user, n] for n in (1, 2)]
        for name in ("events_30d", "amount_count_30d", "amount_sum_180d"):
            assert sum(row[f"view{n}_{name}"] or 0 for n in (1, 2)) == pytest.approx(row[name])
        counts: Counter[int] = Counter()
        for n in (1, 2):
            counts.update(dict(zip(row[f"view{n}_mcc_ids"], row[f"view{n}_mcc_counts_180d"], strict=True)))
        assert counts == dict(zip(row["mcc_ids"], row["mcc_counts_180d"], strict=True))
    views = to_batch(
        pa.RecordBatch.from_pylist([rows[21], rows[1]]),
        Layout.of(snapshots[1].manifest(Manifest), read_vocabulary(tables).sizes),
    ).views
    assert views is not None
    assert views.there_B.tolist() == [False, True]
    assert len(views.batches) == 2


def test_views_past_the_cutoff_or_at_one_date_alone_are_refused(
    tables: Tables, configure: Any, snapshots: list[Snapshot]
) -> None:
    config = configure("dates")
    earlier = config.model_copy(update={"training": config.training.model_copy(update={"cutoff": EARLIER})})
    with pytest.raises(TrainingError, match="2024-07-01 holds events after the cutoff of training, 2024-05-22"):
        paired(tables, earlier, snapshots)
    with pytest.raises(TrainingError, match=r"two dates, and 2024-07-01 is the only one: .*views to 'halves'"):
        paired(tables, config, snapshots[1:])


def test_a_model_of_all_losses_is_trained_and_registered(
    tables: Tables, configure: Any, snapshots: list[Snapshot]
) -> None:
    config = configure("dates", likelihood=1.0, contrastive=0.5, future=0.5)
    shorter = config.model_copy(update={"model": config.model.model_copy(update={"future": Future(horizon_days=10)})})
    early = shorter.model_copy(update={"scoring": shorter.scoring.model_copy(update={"as_of": []})})
    made = train_model(tables, configure("dates"), [EARLIER, AS_OF])
    assert seen_until_of(made.card) == AS_OF
    assert set(made.metrics) >= {"validation_contrastive"}
    days = [EARLIER - timedelta(30), EARLIER]
    aggregate_snapshots(tables, early, days, run_id())
    both = load_model(train_model(tables, early, days).path)
    assert seen_until_of(both.card) == EARLIER + timedelta(10)
    assert {f"validation_{name}" for name in config.model.loss} <= both.metrics.keys()

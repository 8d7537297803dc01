"""One small pipeline per kind of the catalogue: a log, snapshots, a trained version, scored rows."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.events.vocabulary import fit_vocabulary
from gur_spark.models.catalogue import MODULES, find
from gur_spark.models.kind import Form, Kind
from gur_spark.registry.artefact import LoadedModel, load_model
from gur_spark.serving.scoring import score_snapshot
from gur_spark.snapshots.aggregation import aggregate_snapshots
from gur_spark.snapshots.files import row_groups
from gur_spark.snapshots.sequences import sequence_snapshots
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.open import open_tables
from gur_spark.training.run import train_model
from gur_spark.training.version import TrainedVersion
from tests.conftest import config_over
from tests.test_snapshots import Event, run_id, write

SMALL: dict[str, dict[str, Any]] = {
    "gur": {"latent_dim": 8, "loss": {"likelihood": 1, "future": 1}, "future": {"horizon_days": 20}},
    "coles": {"latent_dim": 8},
}
"""Settings that make a kind small enough for a test; a kind without an entry has its defaults."""

EARLIER, TRAINED_ON = date(2024, 5, 10), date(2024, 6, 1)
SCORED_AT = date(2024, 7, 1)
USERS = 160

MAKERS = {Form.AGGREGATES: aggregate_snapshots, Form.SEQUENCES: sequence_snapshots}
"""Form -> function that makes snapshots of it."""


def events_of(seed: int = 5, after: date = SCORED_AT) -> list[Event]:
    """A log of half a year until some days after ``after``; some users stop early, some have a single event."""
    rng = np.random.default_rng(seed)
    end, made = datetime(after.year, after.month, after.day, tzinfo=UTC) + timedelta(days=40), []
    for user in range(USERS):
        count = 1 if user % 20 == 0 else int(rng.integers(3, 60))
        quiet = float(rng.choice([0.0, 0.0, 60.0]))
        taste = rng.choice(list("abcd"))
        for _ in range(count):
            when = end - timedelta(days=quiet + float(rng.uniform(0, 180)), seconds=int(rng.integers(0, 86_400)))
            code = None if rng.random() < 0.1 else str(taste if rng.random() < 0.6 else rng.choice(list("abcd")))
            amount = None if rng.random() < 0.1 else int(rng.integers(-500, 9_000))
            made.append((user, when, when.date(), code, amount))
    return made


@dataclass
class Piped:
    """A pipeline of one kind, until its rows are scored."""

    kind: Kind
    tables: Tables
    config: Any
    snapshot: Snapshot
    version: TrainedVersion

    @property
    def model(self) -> LoadedModel:
        return load_model(self.version.path)

    @property
    def output(self) -> str:
        return self.kind.writes[0]

    def rows(self) -> pa.RecordBatch:
        """Every row of the scored snapshot, as the scorer reads them, by user_id."""
        columns = self.model.scorer.columns
        groups = [batch for group in row_groups(self.snapshot.path) for batch in group.read(columns, group.rows)]
        batch: pa.RecordBatch = pa.Table.from_batches(groups).sort_by("user_id").combine_chunks().to_batches()[0]
        return batch

    def make(self, dates: list[date]) -> list[Snapshot]:
        """Snapshots of the kind's form."""
        return list(MAKERS[self.kind.reads](self.tables, self.config, dates, run_id()).snapshots)


def config_for(name: str, root: Path, **training: Any) -> Any:
    return config_over(
        root,
        vocabulary={"min_count": 1},
        model={"kind": name, **SMALL.get(name, {})},
        training={
            "as_of": [str(EARLIER), str(TRAINED_ON)], "epochs": 3, "batch_size": 32, "patience": 3,
            "validation_share": 0.25, "device": "cpu", **training,
        },
        scoring={"as_of": [str(SCORED_AT)]},
    )  # fmt: skip


def piped(spark: Any, name: str, root: Path, events: list[Event], **training: Any) -> Piped:
    """A pipeline of a kind over these events."""
    config = config_for(name, root, **training)
    tables = open_tables(spark, config.tables)
    write(tables, events)
    # As a pipeline fits it: it knows nothing of the time after training.
    fit_vocabulary(tables, config, before=TRAINED_ON)
    kind = find(name)
    made = MAKERS[kind.reads](tables, config, [EARLIER, TRAINED_ON, SCORED_AT], run_id()).snapshots
    version = train_model(tables, config, config.training.as_of)
    score_snapshot(tables, config, made[-1], version.path, run_id())
    return Piped(kind, tables, config, made[-1], version)


@pytest.fixture(scope="session", params=sorted(MODULES))
def pipeline(request: pytest.FixtureRequest, spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Piped:
    """A small pipeline of every kind."""
    return piped(spark, request.param, tmp_path_factory.mktemp(request.param), events_of())

"""The train job on Spark's side: the snapshots that it takes, and the row that it leaves."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gur_spark.errors import ModelError, SnapshotError, TrainingError
from gur_spark.events.vocabulary import fit_vocabulary, read_vocabulary
from gur_spark.models.gur import train as gur_training
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.kind import Capability, Form, TrainingInputs, VocabularyRef
from gur_spark.models.lifestream.coles import Coles
from gur_spark.registry.artefact import Origin, load_model
from gur_spark.registry.card import seen_until_of
from gur_spark.registry.dimensions import describe_dimensions
from gur_spark.snapshots.aggregation import aggregate_snapshot
from gur_spark.snapshots.visible import Snapshot
from gur_spark.tables.delta import Tables
from gur_spark.tables.runs import Run, record
from gur_spark.training import run as training
from gur_spark.training.run import code_commit, train_model
from gur_spark.training.version import TrainedVersion
from jobs import score, train
from tests.model_rows import registered_version
from tests.test_snapshots import write
from tests.versions import trained_version

pytestmark = pytest.mark.any_engine

DAYS = [date(2024, 6, 1), date(2024, 7, 1)]


def new_run() -> Run:
    return Run(id="run", job="train", parameters={})


@pytest.fixture
def config(make_config: Any) -> Any:
    return make_config(
        {
            "vocabulary": {"min_count": 1},
            "model": {"latent_dim": 4},
            "training": {"epochs": 1, "device": "cpu", "validation_share": 0.3},
        }
    )


@pytest.fixture
def snapshots(tables: Tables, config: Any) -> list[Snapshot]:
    midnight = datetime(2024, 6, 1, tzinfo=UTC)
    rows = [
        (user, midnight - timedelta(hours=hour * user + 1), date(2024, 5, 31), "ab"[user % 2], 100 * hour)
        for user in range(30)
        for hour in range(3)
    ]
    write(tables, rows)
    fit_vocabulary(tables, config)
    return [aggregate_snapshot(tables, config, day, f"run{day}") for day in DAYS]


def test_the_version_is_registered_with_where_it_comes_from(
    tables: Tables, config: Any, snapshots: list[Snapshot]
) -> None:
    run = new_run()
    train.stage(tables, config, Namespace(as_of=DAYS, align_to=None), run)
    [row] = tables.read("models").collect()
    loaded = load_model(row.path)
    assert row.model_version == loaded.version == run.outputs["model_version"]
    assert row.path == run.outputs["path"]
    assert row.manifest_hash == loaded.manifest.hash == snapshots[0].manifest_hash
    assert (row.vocabulary_version, row.vocabulary_hash) == (1, snapshots[0].vocabulary_hash)
    sizes = read_vocabulary(tables).sizes
    assert loaded.vocabulary == VocabularyRef(version=1, hash=snapshots[0].vocabulary_hash, sizes=sizes)
    assert row.training_snapshots == [s.path for s in snapshots]
    assert row.metrics == loaded.metrics
    assert (row.kind, row.pipeline, row.outputs) == ("gur", "test", ["embeddings"])
    assert (row.upstream, row.aligned_to, row.code_commit) == (None, None, code_commit())
    assert run.inputs == {f"snapshot {s.as_of}": s.path for s in snapshots}
    assert run.counts["train_rows"] + run.counts["validation_rows"] == sum(s.rows for s in snapshots)
    assert loaded.card.training_dates == tuple(map(str, DAYS))
    assert seen_until_of(loaded.card) == DAYS[1]
    assert not list(Path(tables.folder("checkpoints")).iterdir())


def test_dimensions_are_named_by_values_and_described_by_version(
    tables: Tables, config: Any, snapshots: list[Snapshot]
) -> None:
    linear = config.model.model_copy(update={"linear_dim": 4})
    made = train_model(tables, config.model_copy(update={"model": linear}), DAYS[:1])
    found = describe_dimensions(tables.spark, config, made.version)
    assert list(found.columns) == ["dimension", "name", "variance", "loadings"]
    assert found["dimension"].tolist() == [1, 2, 3, 4]
    labels = {label for loadings in found["loadings"] for label in loadings}
    assert labels & {"mcc_7d[a]", "mcc_7d[b]", "mcc_30d[a]", "mcc_30d[b]", "mcc_180d[a]", "mcc_180d[b]"}
    assert describe_dimensions(tables.spark, config, f"{made.version}-mean3").equals(found)
    assert found["name"][0] in Path(made.path, "MODEL_CARD.md").read_text()
    file = Path(made.path, "dimensions.json")
    file.write_text(file.read_text().replace("mcc", "mmc"))
    with pytest.raises(ModelError, match=f"{made.version}: dimensions.json was altered"):
        describe_dimensions(tables.spark, config, made.version)
    without = train_model(
        tables, config.model_copy(update={"model": config.model.model_copy(update={"linear_dim": 0})}), DAYS[:1]
    )
    assert describe_dimensions(tables.spark, config, without.version).empty


def weights(made: TrainedVersion) -> bytes:
    return (Path(made.path) / "model.safetensors").read_bytes()


def test_frozen_tables_are_counted_by_spark_and_give_the_weights_that_training_alone_gives(
    tables: Tables, config: Any, snapshots: list[Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer columns than ids: otherwise the table is the identity.
    frozen = config.model.model_copy(update={"tables": "frozen", "embedding_dim": 2})
    config = config.model_copy(update={"model": frozen})
    with monkeypatch.context() as patched:
        # By the job, training itself counts nothing.
        patched.setattr(gur_training, "count_snapshots", None)
        by_job = train_model(tables, config, DAYS)
    fitted = read_vocabulary(tables)
    vocabulary = VocabularyRef(version=fitted.version, hash=fitted.hash, sizes=fitted.sizes)
    paths = [s.path for s in snapshots]
    alone = trained_version(paths, tmp_path, config.model, config.training, vocabulary=vocabulary)
    assert weights(by_job) == weights(alone)
    scorer = load_model(by_job.path).scorer
    assert isinstance(scorer, GurScorer)
    assert scorer.module.inputs.tables["mcc"].weight.any()


def test_a_version_is_aligned_to_one_by_name_and_the_table_says_so(tables: Tables, make_config: Any) -> None:
    training = {"epochs": 1, "device": "cpu", "validation_share": 0.3}
    fitted = {"vocabulary": {"min_count": 1}, "model": {"latent_dim": 4}, "training": training}
    config = make_config({**fitted, "aggregates": {"windows": [30, 60]}})
    end = datetime(2024, 6, 1, tzinfo=UTC)
    days = [(user, end - timedelta(days=day, hours=user)) for user in range(30) for day in (2, 20)]
    write(tables, [(user, time, time.date(), "ab"[user % 2], 100 * user) for user, time in days])
    fit_vocabulary(tables, config)
    aggregate_snapshot(tables, config, DAYS[0], "run")
    first = train_model(tables, config, DAYS[:1])
    other = config.model_copy(update={"training": config.training.model_copy(update={"seed": 2})})
    second = train_model(tables, other, DAYS[:1], align_to=first.version)
    aligned_to = {row.model_version: row.aligned_to for row in tables.read("models").collect()}
    assert aligned_to == {first.version: None, second.version: first.version}
    with pytest.raises(ModelError, match="no model version 'nobody'"):
        train_model(tables, other, DAYS[:1], align_to="nobody")
    with pytest.raises(ModelError, match="--align-to published: nothing is published for pipeline 'test'"):
        train_model(tables, other, DAYS[:1], align_to="published")


LITERAL = Snapshot(
    form=Form.AGGREGATES,
    as_of=DAYS[0],
    known_at=datetime(2024, 6, 1, tzinfo=UTC),
    path="gone",
    manifest_hash="manifest",
    vocabulary_version=1,
    vocabulary_hash="hash",
    lineage="",
    rows=1,
    checksum="0",
)


def test_what_cannot_be_aligned_is_refused_before_anything_is_trained(
    tables: Tables, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, LITERAL)
    path = registered_version(tables, "test")
    version = Path(path).name
    coles = make_config({"model": {"kind": "coles"}})
    with pytest.raises(ModelError, match="kind 'coles' cannot be aligned to an older version; name that version in"):
        train_model(tables, coles, DAYS[:1], align_to=version)
    monkeypatch.setattr(Coles, "can", frozenset(Capability))
    with pytest.raises(ModelError, match=f"--align-to {version}: it is of kind 'gur', expected 'coles'"):
        train_model(tables, coles, DAYS[:1], align_to=version)


@dataclass(frozen=True)
class Fitted:
    """As much of a vocabulary as training reads."""

    version: int = 1
    hash: str = "hash"
    sizes: Mapping[str, int] = field(default_factory=lambda: {"mcc": 5})
    texts: None = None


def stub(monkeypatch: pytest.MonkeyPatch, *snapshots: Snapshot) -> None:
    """Training finds these snapshots, and one vocabulary."""
    found = {s.as_of: s for s in snapshots}
    monkeypatch.setattr(training, "find_snapshot", lambda _tables, _config, day, _form: found[day])
    monkeypatch.setattr(training, "read_vocabulary", lambda _tables, _version: Fitted())


def test_snapshots_of_different_vocabularies_are_not_mixed(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, LITERAL, replace(LITERAL, as_of=DAYS[1], vocabulary_hash="other", vocabulary_version=2))
    with pytest.raises(SnapshotError, match=r"2024-06-01 and 2024-07-01 .* \(versions 1 and 2\)"):
        train_model(tables, config, DAYS)


def test_snapshots_are_trained_on_by_date_in_whatever_order_they_are_named(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, LITERAL, replace(LITERAL, as_of=DAYS[1], path="newer"))
    given: list[Any] = []

    def stop(_kind: Any, inputs: TrainingInputs, origin: Origin, *_rest: Any, **_more: Any) -> None:
        given.append((*inputs.snapshots, *inputs.folders, *origin.dates, origin.seen_until))
        raise TrainingError("far enough")

    monkeypatch.setattr(training, "train_version", stop)
    with pytest.raises(TrainingError, match="far enough"):
        train_model(tables, config, DAYS[::-1])
    assert given == [("gone", "newer", "gone", "newer", *map(str, DAYS), DAYS[1])]


def test_a_snapshot_of_other_columns_than_the_configurations_is_refused_by_name(
    tables: Tables, config: Any, snapshots: list[Snapshot], make_config: Any
) -> None:
    wider = make_config({"aggregates": {"windows": [7, 30, 90]}})
    with pytest.raises(SnapshotError, match=r"aggregates of 2024-06-01 .* differ in .*_90d.*; run the aggregate job"):
        train_model(tables, wider, DAYS[:1])
    # A second pipeline's snapshot of the date stands beside the first one's, and each trains on its own.
    wide = aggregate_snapshot(tables, wider, DAYS[0], "wide")
    assert train_model(tables, config, DAYS[:1]).card.training_snapshots == (snapshots[0].path,)
    wider = wider.model_copy(update={"model": config.model, "training": config.training})
    assert train_model(tables, wider, DAYS[:1]).card.training_snapshots == (wide.path,)
    # The second pipeline's snapshot is newer, and the first one's model still scores its own.
    first = tables.read("models").where(f"manifest_hash = '{snapshots[0].manifest_hash}'").collect()[0].model_version
    run = new_run()
    score.stage(tables, config, Namespace(as_of=DAYS[:1], model=first, force=None, changed_since=None), run)
    assert run.inputs[f"snapshot {DAYS[0]}"] == snapshots[0].path


def test_a_date_past_the_cutoff_of_training_is_refused(tables: Tables, config: Any) -> None:
    early = config.model_copy(update={"training": config.training.model_copy(update={"cutoff": DAYS[0]})})
    with pytest.raises(TrainingError, match="events before 2024-07-01 reach past the cutoff of training, 2024-06-01"):
        train_model(tables, early, DAYS)


def test_no_date_and_a_failed_training_leave_no_version(
    tables: Tables, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(monkeypatch, LITERAL)
    with pytest.raises(TrainingError, match="no snapshot to train on"):
        train_model(tables, config, [])
    args = Namespace(as_of=DAYS[:1], align_to=None)
    with pytest.raises(SnapshotError, match="is not a snapshot"), record(tables, "train", {}) as run:
        train.stage(tables, config, args, run)
    assert not tables.exists("models")
    # Its row says which snapshots it failed on.
    [row] = tables.read("runs").collect()
    assert (row.status, row.inputs) == ("failed", {f"snapshot {DAYS[0]}": "gone"})

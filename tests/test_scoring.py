"""Scoring: users whose inputs are the same keep their embedding bit for bit; means of dates; one of two runs wins."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from gur_spark import storage
from gur_spark.errors import GateError, ModelError, TableError, WriteConflict
from gur_spark.models import gur
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.kind import Capability, Form, Scorer, VocabularyRef
from gur_spark.outputs.notes import Note
from gur_spark.registry.artefact import load_model
from gur_spark.registry.known import find_model
from gur_spark.serving import changes, scoring
from gur_spark.serving.publishing import publish
from gur_spark.serving.scoring import ScoringResult, score_snapshot
from gur_spark.serving.workers import score_batch
from gur_spark.snapshots.visible import Snapshot
from gur_spark.spaces.axes import space_of
from gur_spark.spaces.smoothing import mean_of_entries
from gur_spark.tables.delta import Commit, Tables
from gur_spark.tables.open import open_tables
from tests.aggregate_data import SIZES, random_events, tiny_manifest, to_rows, write_snapshot
from tests.conftest import config_over
from tests.model_rows import registered_version

pytestmark = pytest.mark.both_engines

D1, D2 = date(2024, 6, 1), date(2024, 6, 2)
MANIFEST = tiny_manifest()
USERS = 300


def rows_of(seed: int = 0, users: int = USERS) -> pa.RecordBatch:
    return to_rows(random_events(users, SIZES, ["amount"], seed, MANIFEST.windows[-1]), MANIFEST)


def snapshot(folder: Path, rows: pa.RecordBatch, as_of: date) -> Snapshot:
    return Snapshot(
        form=Form.AGGREGATES, as_of=as_of, known_at=datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC),
        path=write_snapshot(folder, rows, MANIFEST), manifest_hash=MANIFEST.hash, vocabulary_version=1,
        vocabulary_hash="v", lineage="events x version 3", rows=rows.num_rows, checksum="",
    )  # fmt: skip


def some_changed(rng: np.random.Generator) -> tuple[pa.RecordBatch, int]:
    """The rows of another day in another order: some users are as before, some differ, some left, some are new.

    Returns how many have the inputs that they had, too.
    """
    before, other = rows_of(0), rows_of(1, USERS + 20)
    draw = rng.random(USERS)
    same = before.filter(pa.array(draw < 0.6))
    different = other.filter(pa.array(np.append((draw > 0.7), np.ones(20, np.bool_))))
    mixed = pa.Table.from_batches([same, different]).combine_chunks()
    was, now = (
        {row["user_id"]: row for row in of.select(["user_id", *MANIFEST.inputs]).to_pylist()} for of in (before, mixed)
    )
    as_before = sum(was.get(user) == row for user, row in now.items())
    return mixed.take(pa.array(rng.permutation(mixed.num_rows))).to_batches()[0], as_before


@pytest.fixture(scope="module")
def place(spark: Any, tmp_path_factory: Any) -> tuple[Tables, Any]:
    config = config_over(tmp_path_factory.mktemp("scoring"))
    return open_tables(spark, config.tables), config


@pytest.fixture(scope="module")
def model(place: tuple[Tables, Any]) -> str:
    """The path of an untrained model, whose embeddings have length 1."""
    tables, config = place
    settings = config.model.model_copy(update={"latent_dim": 5, "unit_norm": True})
    vocabulary = VocabularyRef(version=1, hash="v", sizes=SIZES)
    return registered_version(tables, config.name, model=settings, vocabulary=vocabulary)


def scored(place: tuple[Tables, Any], version: str, as_of: date) -> dict[int, tuple[list[float], int]]:
    rows = place[0].read("embeddings").where(f"model_version = '{version}' AND as_of = DATE '{as_of}'").collect()
    assert len({row.user_id for row in rows}) == len(rows)
    return {row.user_id: (list(row.embedding), row.events) for row in rows}


def plain(model: str, rows: pa.RecordBatch) -> dict[int, tuple[list[float], int]]:
    made = score_batch(load_model(model), rows, "embeddings")
    columns = (made[name].to_pylist() for name in ("user_id", "embedding", "events"))
    return {user: (vector, events) for user, vector, events in zip(*columns, strict=True)}


def scoring_as(config: Any, **settings: Any) -> Any:
    return config.model_copy(update={"scoring": config.scoring.model_copy(update=settings)})


def score(place: tuple[Tables, Any], one: Snapshot, model: str, *given: Any, **more: Any) -> ScoringResult:
    """Score a date as a run of its own."""
    return score_snapshot(*place, one, model, f"run{np.random.default_rng().integers(1 << 60):x}", *given, **more)


def test_not_a_bit_of_an_embedding_depends_on_the_other_rows_of_its_batch(model: str) -> None:
    scorer = load_model(model).scorer
    assert isinstance(scorer, GurScorer)
    rows, rng = rows_of(0, 1200), np.random.default_rng(0)
    expected = scorer.exact_vectors(rows)
    for size in (1, 3, 100, 1024, 1199):
        chosen = rng.permutation(rows.num_rows)[:size]
        np.testing.assert_array_equal(scorer.exact_vectors(rows.take(pa.array(chosen))), expected[chosen])


@dataclass
class Altered:
    """A scorer whose rows are changed on their way out."""

    scorer: Scorer
    change: Callable[[pa.RecordBatch], pa.RecordBatch]

    @property
    def columns(self) -> Sequence[str]:
        return self.scorer.columns

    def score(self, rows: pa.RecordBatch) -> dict[str, pa.RecordBatch]:
        return {"embeddings": self.change(self.scorer.score(rows)["embeddings"])}


def not_finite(made: pa.RecordBatch) -> pa.RecordBatch:
    """The vector of the third user has no number."""
    vectors = made["embedding"].to_pylist()
    vectors[2] = [float("nan"), *vectors[2][1:]]
    return made.set_column(1, "embedding", pa.array(vectors, pa.list_(pa.float32())))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made.slice(1), r"gave 299 embeddings for 300 rows"),
        (not_finite, r"gives user 2 an embedding that is not finite"),
    ],
)
def test_a_scorer_that_breaks_the_contract_is_stopped_on_the_worker(
    model: str, change: Callable[[pa.RecordBatch], pa.RecordBatch], said: str
) -> None:
    loaded = load_model(model)
    assert score_batch(loaded, rows_of(), "embeddings").num_rows == USERS
    with pytest.raises(ModelError, match=f"model {loaded.version} {said}"):
        score_batch(replace(loaded, scorer=Altered(loaded.scorer, change)), rows_of(), "embeddings")


def test_scoring_the_changed_users_only_is_scoring_everyone(
    place: tuple[Tables, Any], model: str, tmp_path: Path
) -> None:
    tables, config = place
    version = score(place, snapshot(tmp_path / "1", rows_of(), D1), model).model_version
    rows, same = some_changed(np.random.default_rng(5))
    done = score(place, snapshot(tmp_path / "2", rows, D2), model, changed_since=D1)
    assert scored(place, version, D2) == plain(model, rows)
    counts = {"encoded": rows.num_rows - same, "copied": same, "rows": rows.num_rows}
    assert done.account.counts == {f"{name} 2024-06-02": count for name, count in counts.items()}
    assert (done.as_of, done.rows, done.model_version) == (D2, rows.num_rows, version)
    assert done.account.outputs == {"embeddings 2024-06-02": f"model_version={version}"}
    # Made again after a correction, the date is compared with what its rows were made from; its folder may be another.
    corrected, _ = some_changed(np.random.default_rng(6))
    only_changed = tables, scoring_as(config, changed_only=True)
    done = score(only_changed, snapshot(tmp_path / "3", corrected, D2), model)
    assert scored(place, version, D2) == plain(model, corrected)
    assert 0 < done.account.counts["copied 2024-06-02"] < corrected.num_rows
    assert done.account.inputs["changed since 2024-06-02"] == f"2024-06-02, made from {tmp_path}/2"
    assert scored(place, version, D1) == plain(model, rows_of())


def test_rows_of_which_it_is_not_known_what_they_were_made_from_are_not_copied(
    place: tuple[Tables, Any], model: str, tmp_path: Path
) -> None:
    tables, config = place
    day = D1 + timedelta(days=30)
    one = snapshot(tmp_path / "1", rows_of(), day)
    with pytest.raises(TableError, match=r"no embeddings of gur-\S+ at 2024-07-01 in the last \d+ commits"):
        score(place, one, model, changed_since=day)
    version = score(place, one, model).model_version
    altered = {"user_id": [1], "as_of": [day], "model_version": [version], "embedding": [[9.0] * 5], "events": [1]}
    types = {"embedding": pa.list_(pa.float32()), "as_of": pa.date32(), "user_id": pa.int64(), "events": pa.int64()}
    others = {name: pa.array(values, types.get(name)) for name, values in altered.items()}
    within = f"model_version = '{version}' AND as_of = '{day}'"
    write_deltalake(tables.folder("embeddings"), pa.table(others), mode="overwrite", predicate=within)
    with pytest.raises(TableError, match=r"what they were made from is not known, since version \d+ .* \(WRITE\)"):
        score(place, one, model, changed_since=day)
    done = score((tables, scoring_as(config, changed_only=True)), one, model)
    assert done.account.inputs["changed since 2024-07-01"].startswith("everyone: ")
    assert scored(place, version, day) == plain(model, rows_of())


def test_means_are_those_of_the_dates_in_which_a_user_is_under_a_name_of_their_own(
    place: tuple[Tables, Any], model: str, tmp_path: Path
) -> None:
    tables, config = place
    config = scoring_as(config, smoothing=2)
    smoothing = tables, config
    days = [D1 + timedelta(days=60 + n) for n in range(3)]
    dated = [rows_of(2).slice(0, 60), rows_of(3).slice(20, 60), rows_of(4).slice(0, 60)]
    for number, (day, rows) in enumerate(zip(days, dated, strict=True)):
        version = score(smoothing, snapshot(tmp_path / str(number), rows, day), model).model_version
    before, now = plain(model, dated[1]), plain(model, dated[2])
    found = scored(place, f"{version}-mean2", days[2])
    assert found.keys() == now.keys()
    for user, (vector, events) in found.items():
        both = [np.array(made[user][0]) for made in (now, before) if user in made]
        mean = sum(both) / len(both)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
        assert events == now[user][1]
    assert scored(place, version, days[2]) == now
    newest = find_model(tables, config, "newest")
    assert (newest.model_version, newest.rows_version) == (version, f"{version}-mean2")
    assert find_model(tables, config, f"{version}-mean2").path == model
    assert find_model(tables, config, version).rows_version == version
    assert space_of(tables, f"{version}-mean2") == version


def test_where_means_do_not_pass_the_rows_they_were_made_of_are_not_replaced_either(
    place: tuple[Tables, Any], model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables, config = place
    config, day = scoring_as(config, smoothing=2), D1 + timedelta(days=120)
    smoothing = tables, config
    version = score(smoothing, snapshot(tmp_path / "1", rows_of(2).slice(0, 60), day), model).model_version
    publish(tables, config, f"{version}-mean2", day, "first")
    corrected = snapshot(tmp_path / "2", rows_of(3).slice(0, 20), day)
    with pytest.raises(
        GateError, match=r"embeddings of \S+-mean2 at 2024-09-29 do not pass: rows, as a share of those published, 0\.3"
    ):
        score(smoothing, corrected, model)
    assert scored(place, version, day) == plain(model, rows_of(2).slice(0, 60))
    assert len(scored(place, f"{version}-mean2", day)) == 60
    score(smoothing, corrected, model, force=True)
    assert scored(place, version, day) == plain(model, rows_of(3).slice(0, 20))
    assert len(scored(place, f"{version}-mean2", day)) == 20
    assert not storage.folders(tables.folder("_staging"))
    assert "is published and stays" not in caplog.text
    score(place, corrected, model)
    assert f"{version}-mean2 is published and stays at {day}" in caplog.text


@pytest.mark.parametrize(
    ("asked", "needed"), [({"smoothing": 2}, "smoothing"), ({"in_space_of": ["older"]}, "mapping")]
)
def test_what_the_kind_of_the_version_cannot_do_is_refused_before_a_row_is_written(
    place: tuple[Tables, Any],
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    needed: str,
) -> None:
    tables, config = place
    one = snapshot(tmp_path / "rows", rows_of(), D1 + timedelta(days=200))
    able = type(gur.KIND).can
    monkeypatch.setattr(type(gur.KIND), "can", able - {Capability(needed)})
    with pytest.raises(
        ModelError, match=rf"scoring\.{next(iter(asked))} needs the capability '{needed}', .* kind 'gur'"
    ):
        score((tables, scoring_as(config, **asked)), one, model)
    assert scored(place, load_model(model).version, one.as_of) == {}


def test_a_mean_does_not_depend_on_the_order_of_entries_and_opposite_embeddings_leave_the_newest() -> None:
    struct = pa.struct([("age", pa.int32()), ("embedding", pa.list_(pa.float32())), ("events", pa.int64())])
    one = [{"age": 0, "embedding": [1.0, 0.0], "events": 4}, {"age": 3, "embedding": [0.0, 3.0], "events": 5}]
    two = [{"age": 1, "embedding": [-1.0, 0.0], "events": 2}, {"age": 0, "embedding": [1.0, 0.0], "events": 1}]
    for entries in ([one, two], [one[::-1], two[::-1]]):
        users = pa.record_batch({"user_id": [7, 8], "entries": pa.array(entries, pa.list_(struct))})
        assert mean_of_entries(users, unit_norm=False).to_pydict() == {
            "user_id": [7, 8], "embedding": [[0.5, 1.5], [0.0, 0.0]], "events": [4, 1]
        }  # fmt: skip
        assert mean_of_entries(users, unit_norm=True)["embedding"].to_pylist()[1] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("dates", "before"), [(1, 0), (2, 0), (2, 7)], ids=["rows alone", "rows and means", "means and rows of before"]
)
def test_of_two_runs_that_score_a_date_at_once_one_wins_and_nothing_is_mixed(
    place: tuple[Tables, Any], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dates: int, before: int
) -> None:
    tables, config = place
    smoothing = tables, scoring_as(config, smoothing=dates)
    day, folder = D1 + timedelta(days=90 * dates + before), tables.folder("embeddings")
    mine = snapshot(tmp_path / "mine", rows_of(8), day)
    day -= timedelta(before)
    winner = score_batch(load_model(model), rows_of(7).slice(0, 30), "embeddings")
    version = load_model(model).version
    keys = {"as_of": pa.array([day] * 30, pa.date32()), "model_version": [version] * 30}
    table = pa.table({**{name: winner[name] for name in winner.schema.names}, **keys})
    note = Note(model_version=version, as_of=day, snapshot=mine.path, lineage=mine.lineage)
    said = CommitProperties(custom_metadata={"userMetadata": note.to_json()})
    score_rows = scoring.score_rows

    def score_while_another_run_commits(*given: Any) -> Any:
        frame = score_rows(*given)

        def meanwhile(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            within = f"model_version = '{version}' AND as_of = '{day}'"
            write_deltalake(folder, table, mode="overwrite", predicate=within, commit_properties=said)
            yield from batches

        return frame.coalesce(1).mapInArrow(meanwhile, frame.schema)

    monkeypatch.setattr(scoring, "score_rows", score_while_another_run_commits)
    with pytest.raises(WriteConflict, match="another run wrote to it at the same time and won"):
        score(smoothing, mine, model)
    assert scored(place, version, day) == plain(model, rows_of(7).slice(0, 30))


@pytest.mark.any_engine
@pytest.mark.parametrize("said", [None, "by hand", "[1]", '{"user": "ann"}'])
def test_a_commit_that_scoring_did_not_write_may_have_changed_any_row_whatever_it_says(said: str | None) -> None:
    note = json.dumps({"model_version": "v", "as_of": str(D1), "snapshot": "s", "lineage": "l"})
    own = Commit(1, "WRITE", None, note)
    history: Any = SimpleNamespace(exists=lambda table: True, newest_commits=lambda table, number: [own])
    assert changes.find_rows(history, "v", D1).snapshot == "s"
    history.newest_commits = lambda table, number: [Commit(2, "DELETE", None, said), own]
    with pytest.raises(TableError, match="version 2 of the table"):
        changes.find_rows(history, "v", D1)

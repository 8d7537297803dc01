"""Co-occurrence of ids: the same numbers from plain Python, in this process and on Spark."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.config.training import Training
from gur_spark.errors import ModelError, SnapshotError
from gur_spark.features.declare.aggregates import make_manifest
from gur_spark.features.declare.manifest import AttributeField
from gur_spark.models.gur import counting
from gur_spark.models.gur.cooccurrence import Together, count, count_snapshots, presence, upper, whole
from gur_spark.models.gur.counting import count_on_spark
from gur_spark.splits import held_out
from tests.aggregate_data import WINDOWS, random_events, tiny_manifest, to_rows, write_snapshot

FIELDS = {"mcc": 40, "channel": 5}
ATTRIBUTES = [
    AttributeField(name="country", log="profile"),
    AttributeField(name="genres", log="profile", separator="|"),
]
MANIFEST = make_manifest("long", WINDOWS, tiny_manifest().numeric, tuple(FIELDS), attributes=ATTRIBUTES)
SIZES = FIELDS | {"country": 6, "genres": 30}
TRAINING = Training(
    epochs=1, batch_size=32, learning_rate=0.005, patience=3, validation_share=0.3, seed=4, device="cpu", threads=1
)


def rows_of(seed: int, users: int = 150) -> pa.RecordBatch:
    """Users some of whom have no event, no country or no genre; half of the ids have no event in the last 30 days."""
    generator = np.random.default_rng(seed)
    rows = to_rows(random_events(users, FIELDS, ["amount"], seed, 2 * WINDOWS[-1]), MANIFEST)
    countries = [None if generator.random() < 0.2 else int(generator.integers(1, 6)) for _ in range(users)]
    genres = [sorted(generator.choice(np.arange(1, 30), generator.integers(0, 4), replace=False)) for _ in range(users)]
    return replaced(replaced(rows, "country", countries), "genres", genres)


def replaced(rows: pa.RecordBatch, name: str, values: list[Any]) -> pa.RecordBatch:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, name, pa.array(values, type=rows.schema.field(name).type))


def naive(rows: list[dict[str, Any]], name: str) -> npt.NDArray[np.int64]:
    """One user, one pair of ids after the other."""
    together = np.zeros((SIZES[name], SIZES[name]), np.int64)
    for row in rows:
        if name in FIELDS:
            counts = zip(row[f"{name}_ids"], row[f"{name}_counts_30d"], strict=True)
            ids = [identity for identity, number in counts if number]
        else:
            ids = [] if row[name] is None else row[name] if isinstance(row[name], list) else [row[name]]
        for a in ids:
            for b in ids:
                together[a, b] += 1
    return together


def assert_same(found: Together, expected: Together) -> None:
    """The same arrays, and so the same bits of what is computed from them."""
    assert found.keys() == expected.keys()
    for name, matrix in expected.items():
        assert found[name].dtype == matrix.dtype == np.int64
        assert found[name].shape == matrix.shape
        for part in ("indptr", "indices", "data"):
            np.testing.assert_array_equal(getattr(found[name], part), getattr(matrix, part), err_msg=name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two snapshots of the same users, of five row groups each."""
    root = tmp_path_factory.mktemp("snapshots")
    return [write_snapshot(root / str(seed), rows_of(seed), MANIFEST, row_group=32) for seed in (1, 2)]


def test_a_pair_counts_the_users_who_have_both_ids_in_the_longest_window() -> None:
    rows = rows_of(1)
    plain = rows.to_pylist()
    assert any(0 in row["mcc_counts_30d"] for row in plain)
    assert any(row["mcc_ids"] == [] for row in plain)
    found = count([rows], MANIFEST, SIZES)
    assert list(found) == list(SIZES)
    for name, together in found.items():
        np.testing.assert_array_equal(together.toarray(), naive(plain, name), err_msg=name)
        assert together.data.all()


def test_a_count_derived_by_hand() -> None:
    rows = rows_of(1, users=3)
    rows = replaced(rows, "mcc_ids", [[3, 7], [3, 7], []])
    rows = replaced(rows, "mcc_counts_30d", [[9, 1], [2, 0], []])
    rows = replaced(replaced(rows, "country", [2, None, 2]), "genres", [[1, 4], [4], []])
    found = {name: matrix.todok() for name, matrix in count([rows], MANIFEST, SIZES).items()}
    assert dict(found["mcc"].items()) == {(3, 3): 2, (3, 7): 1, (7, 3): 1, (7, 7): 1}
    assert dict(found["country"].items()) == {(2, 2): 2}
    assert dict(found["genres"].items()) == {(1, 1): 1, (1, 4): 1, (4, 1): 1, (4, 4): 2}


def test_users_have_the_ids_that_the_model_pools_in_the_longest_window() -> None:
    rows = rows_of(1)
    layout = Layout.of(MANIFEST, SIZES)
    batch = to_batch(rows, layout)
    for name, has_UV in presence(rows, MANIFEST, layout.sizes).items():
        ids, _, offsets = batch.histograms[name].window(len(layout.windows_of[name]) - 1, len(batch))
        np.testing.assert_array_equal(has_UV.indices, ids.numpy(), err_msg=name)
        np.testing.assert_array_equal(has_UV.indptr, offsets.numpy(), err_msg=name)


def test_counts_of_halves_add_up_to_those_of_the_whole_in_any_order_and_both_triangles_to_the_matrix() -> None:
    rows = rows_of(1)
    expected = count([rows], MANIFEST, SIZES)
    halves = [rows.slice(70), rows.slice(0, 70)]
    assert_same(count(halves, MANIFEST, SIZES), expected)
    assert_same(count([rows.take(pa.array(np.random.default_rng(0).permutation(150)))], MANIFEST, SIZES), expected)
    parts = [count([half], MANIFEST, SIZES) for half in halves]
    assert_same({name: whole(upper(parts[0][name]) + upper(parts[1][name])) for name in SIZES}, expected)
    assert (upper(expected["mcc"]).row <= upper(expected["mcc"]).col).all()


def test_nobody_and_no_input_give_no_count() -> None:
    nobody = count([rows_of(1).slice(0, 0)], MANIFEST, SIZES)
    assert {name: (matrix.shape, matrix.nnz) for name, matrix in nobody.items()} == {
        name: ((size, size), 0) for name, size in SIZES.items()
    }
    assert count([rows_of(1)], MANIFEST, {}) == {}
    assert count_snapshots(["not there"], MANIFEST, {}, TRAINING) == {}


def test_ids_of_another_vocabulary_and_missing_columns_are_refused() -> None:
    with pytest.raises(ModelError, match="field 'mcc': ids from 1 to 39, the model's vocabulary has 1 to 4"):
        count([rows_of(1)], MANIFEST, {"mcc": 5})
    with pytest.raises(ModelError, match="'genres' is not in the snapshot"):
        count([rows_of(1).drop_columns(["genres"])], MANIFEST, SIZES)


def test_only_training_users_of_all_snapshots_count(folders: list[str]) -> None:
    kept = [row for seed in (1, 2) for row in rows_of(seed).to_pylist() if not of_validation(row)]
    assert len(kept) < 300
    for name, together in count_snapshots(folders, MANIFEST, SIZES, TRAINING).items():
        np.testing.assert_array_equal(together.toarray(), naive(kept, name), err_msg=name)


def of_validation(row: dict[str, Any]) -> bool:
    return bool(held_out(np.array([row["user_id"]]), 0.3, "validation 4")[0])


@pytest.mark.both_engines
def test_spark_counts_the_same_users_and_gives_the_same_matrices(
    spark: Any, folders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = count_snapshots(folders, MANIFEST, SIZES, TRAINING)
    assert_same(count_on_spark(spark, folders, MANIFEST, SIZES, TRAINING), expected)
    some = {"genres": 30, "mcc": 40}
    assert_same(count_on_spark(spark, folders, MANIFEST, some, TRAINING), {name: expected[name] for name in some})
    monkeypatch.setattr(counting, "row_groups", None)
    assert count_on_spark(spark, folders, MANIFEST, {}, TRAINING) == {}


@pytest.mark.any_engine
def test_spark_counts_text_ids_and_finds_nobody_where_nobody_is(spark: Any, tmp_path: Path) -> None:
    manifest = tiny_manifest(categorical=("mcc",), user_id_type="string")
    rows = to_rows(random_events(60, {"mcc": 40}, ["amount"], seed=1, longest=30), manifest)
    path = write_snapshot(tmp_path / "texts", rows, manifest)
    expected = count_snapshots([path], manifest, {"mcc": 40}, TRAINING)
    assert expected["mcc"].nnz
    assert_same(count_on_spark(spark, [path], manifest, {"mcc": 40}, TRAINING), expected)
    empty = write_snapshot(tmp_path / "empty", rows.slice(0, 0), manifest)
    assert count_on_spark(spark, [empty], manifest, {"mcc": 40}, TRAINING)["mcc"].nnz == 0
    with pytest.raises(SnapshotError, match="has no Parquet files"):
        count_on_spark(spark, [str(tmp_path / "nothing")], manifest, {"mcc": 40}, TRAINING)

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from gur_spark.batches import streams
from gur_spark.batches.aggregates import to_batch
from gur_spark.batches.layout import Layout
from gur_spark.batches.streams import stream
from gur_spark.errors import ModelError, SnapshotError
from tests.aggregate_data import SIZES, WINDOWS, make_snapshot, random_events, tiny_manifest, to_rows

LAYOUT = Layout.of(tiny_manifest(), SIZES)


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return to_rows(random_events(40, SIZES, ["amount"], seed=3, longest=WINDOWS[-1]), tiny_manifest())


def replaced(rows: pa.RecordBatch, name: str, values: list[Any]) -> pa.RecordBatch:
    position = rows.schema.get_field_index(name)
    return rows.set_column(position, name, pa.array(values, type=rows.schema.field(name).type))


def recencies(batches: Any) -> list[float]:
    """Recency tells the test data's users apart; idle ones have none."""
    recency = [c.name for c in LAYOUT.dense].index("recency_days")
    return [float(x) for b in batches for x in b.dense_BD[:, recency]]


def test_dense_columns_come_in_the_manifests_order_with_nan_for_null(rows: pa.RecordBatch) -> None:
    expected = [
        [np.nan if row[c.name] is None else np.float32(row[c.name]) for c in LAYOUT.dense] for row in rows.to_pylist()
    ]
    np.testing.assert_array_equal(to_batch(rows, LAYOUT).dense_BD.numpy(), np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("field", SIZES)
def test_histograms_hold_the_share_of_each_id_in_each_users_window(rows: pa.RecordBatch, field: str) -> None:
    histogram = to_batch(rows, LAYOUT).histograms[field]
    found = torch.zeros(len(WINDOWS) * rows.num_rows, SIZES[field])
    found[histogram.bags_N, histogram.ids_N] = histogram.shares_N
    expected = np.zeros_like(found.numpy())
    for w, days in enumerate(WINDOWS):
        for user, row in enumerate(rows.to_pylist()):
            counts = dict(zip(row[f"{field}_ids"], row[f"{field}_counts_{days}d"], strict=True))
            for identity, count in counts.items():
                expected[w * rows.num_rows + user, identity] = count / max(sum(counts.values()), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for w in range(len(WINDOWS)):
        ids, shares, offsets = histogram.window(w, rows.num_rows)
        part = sparse.csr_array((shares, ids, offsets), shape=(rows.num_rows, SIZES[field]))
        np.testing.assert_array_equal(part.toarray(), found[w * rows.num_rows : (w + 1) * rows.num_rows])
    assert histogram.filled_M.tolist() == expected.any(axis=1).tolist()
    assert histogram.offsets_M.tolist() == [0, *np.cumsum((expected > 0).sum(axis=1)).tolist()]


def test_a_slice_decodes_as_its_own_rows(rows: pa.RecordBatch) -> None:
    part = to_batch(rows.slice(10, 5), LAYOUT)
    own = to_batch(pa.RecordBatch.from_pylist(rows.to_pylist()[10:15], schema=rows.schema), LAYOUT)
    assert torch.equal(part.dense_BD.nan_to_num(-1), own.dense_BD.nan_to_num(-1))
    for field in SIZES:
        a, b = part.histograms[field], own.histograms[field]
        for name in ("ids_N", "bags_N", "shares_N", "offsets_M", "filled_M"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_no_rows_give_an_empty_batch(rows: pa.RecordBatch) -> None:
    batch = to_batch(rows.slice(0, 0), LAYOUT)
    assert batch.dense_BD.shape == (0, len(LAYOUT.dense))
    assert batch.histograms["mcc"].offsets_M.tolist() == [0]


def test_an_id_outside_the_vocabulary_is_refused(rows: pa.RecordBatch) -> None:
    one = rows.slice(0, 1)
    for identity in (0, SIZES["mcc"]):
        wrong = replaced(one, "mcc_ids", [[identity]])
        for days in WINDOWS:
            wrong = replaced(wrong, f"mcc_counts_{days}d", [[1]])
        with pytest.raises(ModelError, match=f"field 'mcc': ids from {identity} .* has 1 to 8"):
            to_batch(wrong, LAYOUT)


def test_lists_that_do_not_match_null_lists_and_missing_columns_are_refused(rows: pa.RecordBatch) -> None:
    one = rows.slice(0, 1)
    with pytest.raises(ModelError, match="'mcc_counts_7d' has lists of other lengths"):
        to_batch(replaced(one, "mcc_counts_7d", [[1] * 50]), LAYOUT)
    with pytest.raises(ModelError, match="'mcc_ids' has 1 nulls"):
        to_batch(replaced(one, "mcc_ids", [None]), LAYOUT)
    with pytest.raises(ModelError, match="'events_7d' is not in the snapshot; did you mean 'events_30d'"):
        to_batch(rows.drop_columns(["events_7d"]), LAYOUT)


def test_a_field_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(ModelError, match="field 'channel' has no vocabulary"):
        Layout.of(tiny_manifest(), {"mcc": 9})


def test_the_stream_gives_every_kept_user_once_in_batches_of_the_asked_size(tmp_path: Path) -> None:
    path = make_snapshot(tmp_path / "s", users=300)
    batches = list(stream([path], LAYOUT, 64, shuffle_seed=1, keep=lambda users: users.to_numpy() < 250))
    assert [len(b) for b in batches] == [64, 64, 64, 58]
    expected = next(stream([path], LAYOUT, 250))
    np.testing.assert_array_equal(np.sort(recencies(batches)), np.sort(recencies([expected])))


def test_the_same_seed_gives_the_same_order_and_another_seed_another(tmp_path: Path) -> None:
    path = make_snapshot(tmp_path / "s", users=300)
    seeds = ([1, 2], [1, 2], [1, 3])
    first, again, other = (recencies(stream([path], LAYOUT, 64, shuffle_seed=seed)) for seed in seeds)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_the_stream_never_holds_more_than_its_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [make_snapshot(tmp_path / str(i), users=300, seed=i) for i in range(2)]
    monkeypatch.setattr(streams, "BUFFER_ROWS", 64)
    monkeypatch.setattr(streams, "READ_ROWS", 16)
    held: list[int] = []
    concat = streams._concat

    def counting(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        held.append(sum(b.num_rows for b in batches))
        return concat(batches)

    monkeypatch.setattr(streams, "_concat", counting)
    assert sum(len(batch) for batch in stream(paths, LAYOUT, 32, shuffle_seed=0)) == 600
    assert max(held) <= 64 + 16 + 32  # a full buffer, the read that filled it, the rest of the one before
    assert len(held) >= 600 // (64 + 16)


def test_a_snapshot_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="has no Parquet files"):
        list(stream([str(tmp_path)], LAYOUT, 4))

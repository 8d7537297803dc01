"""Representations: in the order that was asked for, on scales that a linear model can compare."""

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.batches.layout import Layout
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import features
from gur_spark.evaluate.features import read_windows
from tests.aggregate_data import SIZES, WINDOWS, random_events, tiny_manifest, to_rows, write_snapshot

USERS = 60
LAYOUT = Layout.of(tiny_manifest(), SIZES)
EVENTS = random_events(USERS, SIZES, ["amount"], seed=4, longest=WINDOWS[-1])


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshot")
    return write_snapshot(folder, to_rows(EVENTS, LAYOUT.manifest), LAYOUT.manifest, files=3)


@pytest.fixture(scope="module")
def windows(snapshot):
    return read_windows(snapshot, LAYOUT, pa.array(range(USERS)))


def test_windows_are_those_of_the_users_in_the_order_asked_for(snapshot):
    users = [41, 3, 0, 58]
    found = read_windows(snapshot, LAYOUT, pa.array(users))
    rows = to_rows(EVENTS, LAYOUT.manifest).to_pylist()
    names = [column.name for column in LAYOUT.dense]
    dense = np.array([[rows[u][name] for name in names] for u in users], dtype=float)
    np.testing.assert_allclose(found.dense_ND, dense, rtol=1e-6)
    empty = [[not rows[u][name] for name in names if name.startswith("events_") or "_count_" in name] for u in users]
    assert found.empty_NF.tolist() == empty
    shares = iter(found.shares)
    for field, size in SIZES.items():
        for w in WINDOWS:
            np.testing.assert_allclose(next(shares).toarray(), [naive_shares(EVENTS[u], field, w, size) for u in users])


def naive_shares(events, field, w, size):
    ids = [event[field] for event in events if event["age"] <= w]
    return [ids.count(i) / max(1, len(ids)) for i in range(size)]


def test_a_user_who_is_not_in_the_snapshot_is_an_error(snapshot):
    with pytest.raises(EvaluationError, match="1 of 3 users with an embedding are not in snapshot"):
        read_windows(snapshot, LAYOUT, pa.array([1, 2, USERS]))


def test_raw_windows_are_standardised_numbers_flags_and_shares_with_the_variance_of_six_numbers(windows):
    raw = features.raw_windows(windows).toarray()
    dense, flags = windows.dense_ND.shape[1], windows.empty_NF.shape[1]
    logs = np.sign(windows.dense_ND) * np.log(1 + np.abs(windows.dense_ND))
    expected = (logs - np.nanmean(logs, axis=0)) / np.nanstd(logs, axis=0)
    np.testing.assert_allclose(raw[:, :dense], np.where(np.isnan(expected), 0, expected), atol=1e-9)
    assert np.array_equal(raw[:, dense : dense + flags], windows.empty_NF)
    start = dense + flags
    for share in windows.shares:
        block = raw[:, start : start + share.shape[1]]
        assert block.var(axis=0).sum() == pytest.approx(6)
        np.testing.assert_allclose(block / block.max(), share.toarray() / share.max())
        start += share.shape[1]
    assert start == raw.shape[1]


def test_principal_components_are_those_of_the_covariance(windows):
    raw = features.raw_windows(windows)
    ours = features.principal_components(raw, 3, seed=0)
    centred = raw.toarray() - raw.toarray().mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(ours), np.abs(left[:, :3] * values[:3]), atol=1e-6)


def test_each_number_has_deviation_1_but_components_and_embeddings_keep_their_proportions(windows):
    embedding = np.random.default_rng(0).normal(3, 5, (USERS, 3)) * [4, 2, 1]
    made = features.represent(windows, embedding, seed=0, more={"more": embedding * 2})
    np.testing.assert_allclose(made["more"].std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(made["embedding"].mean(axis=0), 0, atol=1e-9)
    assert made["embedding"].var(axis=0).mean() == pytest.approx(1)
    np.testing.assert_allclose(
        made["embedding"].std(axis=0) / embedding.std(axis=0), 1 / embedding.var(0).mean() ** 0.5
    )
    raw = made["raw windows"]
    np.testing.assert_array_equal(made["PCA"], features.principal_components(raw, 3, seed=0))
    assert made["PCA"].std(axis=0)[0] > 1.5 * made["PCA"].std(axis=0)[-1]


def test_components_are_as_many_as_the_users_allow(windows):
    few = features.raw_windows(windows)[:3]
    assert features.principal_components(few, 40, seed=0).shape == (3, 2)

"""Baselines on sequences: in the order asked for, nothing for who has no events, and no global state changed."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gur_spark.evaluate.sequence_baselines import Sequences, coles, hand_made
from gur_spark.features.declare.sequences import sequence_manifest
from gur_spark.features.declare.spec import Window
from gur_spark.models.kind import VocabularyRef
from gur_spark.snapshots.files import write_description
from tests.aggregate_data import SIZES, tiny_manifest

USERS, DAY = 12, 86_400
AS_OF = 1_000 * DAY


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences")
    manifest = tiny_manifest()
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 20, USERS).tolist()
    lists = {
        "event_time": [sorted((AS_OF - rng.integers(1, 30 * DAY, n)).tolist()) for n in lengths],
        "mcc": [rng.integers(1, SIZES["mcc"], n).tolist() for n in lengths],
        "channel": [rng.integers(1, SIZES["channel"], n).tolist() for n in lengths],
        "amount": [rng.integers(1, 50, n).astype(float).tolist() for n in lengths],
        "amount_missing": [[1] * n for n in lengths],
    }
    table = pa.table({"user_id": range(USERS), "as_of": [AS_OF] * USERS, **lists})
    (folder / "data").mkdir()
    for part in (0, 1):
        pq.write_table(table.slice(part * 6, 6), folder / "data" / f"part-{part}.parquet")
    made = sequence_manifest(manifest, Window(days=30))
    write_description(str(folder), made, VocabularyRef(version=1, hash="0", sizes=SIZES))
    return Sequences.at(str(folder)), lists


def test_hand_made_statistics_are_those_of_each_user_on_a_logarithmic_scale(sequences):
    found, lists = sequences
    asked = [7, 99, 3]
    made = hand_made(found, pa.array(asked))
    assert not made[1].any()
    for row, user in ((0, 7), (2, 3)):
        amounts, mcc = np.array(lists["amount"][user]), np.array(lists["mcc"][user])
        # Length; sum, mean and deviation of the amount; then counts by id.
        plain = [len(amounts), amounts.sum(), amounts.mean(), amounts.std(ddof=1)]
        counts = [0, *(float((mcc == i).sum()) for i in range(1, SIZES["mcc"]))]
        np.testing.assert_allclose(made[row, : 4 + len(counts)], np.log1p([*plain, *counts]), rtol=1e-4)


def test_coles_gives_a_row_per_user_and_leaves_the_generators_as_they_were(sequences):
    found, _ = sequences
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads()
    asked = [(found, pa.array([4, 99, 0])), (found, pa.array([0]))]
    (made, again), said = coles(found, asked, 8, seconds=1, seed=3)
    assert made.shape == (3, 8)
    # One training, asked at several dates.
    np.testing.assert_allclose(again[0], made[2], rtol=1e-4)
    assert np.isnan(made[1]).all()
    assert np.isfinite(made[[0, 2]]).all()
    assert f"on {USERS} users' events before 1972-09-27" in said
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), torch.get_num_threads()) == before[1:]

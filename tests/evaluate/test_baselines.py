"""Baselines beside an embedding: in the order asked for, and nothing for users without events."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gur_spark.evaluate.baselines import Representations
from gur_spark.evaluate.coles_baseline import train_coles
from gur_spark.evaluate.encoded import encode_users, place
from gur_spark.evaluate.hand_made import BATCH_CELLS, hand_made
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.kind import VocabularyRef
from gur_spark.registry.artefact import load_model
from tests import aggregate_data, versions
from tests.sequence_data import SIZES, User, random_users, write_snapshot

USERS = 40


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[User]]:
    users = random_users(USERS, seed=0, shortest=6)
    return write_snapshot(tmp_path_factory.mktemp("sequences") / "snapshot", users, files=2), users


@pytest.mark.parametrize("cells", [BATCH_CELLS, 1])
def test_hand_made_statistics_are_those_of_each_user_on_a_logarithmic_scale(
    sequences: tuple[str, list[User]], monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    folder, users = sequences
    monkeypatch.setattr("gur_spark.evaluate.hand_made.BATCH_CELLS", cells)
    made = hand_made(folder, pa.array([7, 99, 3]))
    assert not made[1].any()
    for row, user in ((0, users[7]), (2, users[3])):
        amounts, mcc = np.array([amount or 0.0 for amount in user["amount"]]), np.array(user["mcc"])
        # Length; sum, mean and deviation of the amount; then counts by id.
        plain = [len(amounts), amounts.sum(), amounts.mean(), amounts.std(ddof=1)]
        counts = [0, *(float((mcc == i).sum()) for i in range(1, SIZES["mcc"]))]
        np.testing.assert_allclose(made[row, : 4 + len(counts)], np.log1p([*plain, *counts]), rtol=1e-4)


def test_ids_above_those_with_columns_of_their_own_count_as_rare(
    sequences: tuple[str, list[User]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, users = sequences
    monkeypatch.setattr("gur_spark.evaluate.hand_made.MOST_IDS", 4)
    made = hand_made(folder, pa.array([7]))
    mcc = np.array(users[7]["mcc"])
    rare = 1
    counts = [0, float((mcc == rare).sum() + (mcc >= 4).sum()), float((mcc == 2).sum()), float((mcc == 3).sum())]
    np.testing.assert_allclose(made[0, 4:8], np.log1p(counts), rtol=1e-4)


def test_coles_gives_a_row_per_user_the_same_each_time_and_leaves_the_threads_as_they_were(
    sequences: tuple[str, list[User]], tmp_path: Path
) -> None:
    folder, _ = sequences
    before = torch.get_num_threads()
    asked = [(folder, pa.array([4, 99, 0])), (folder, pa.array([0]))]
    training = versions.TRAINING.model_copy(update={"validation_share": 0.3})
    vocabulary = VocabularyRef(version=1, hash="0", sizes=SIZES)
    (made, again), said = train_coles(folder, asked, vocabulary, 8, training, epochs=2, work=str(tmp_path))
    assert made.shape == (3, 8)
    # One training, asked at several dates.
    np.testing.assert_array_equal(again[0], made[2])
    assert np.isnan(made[1]).all()
    assert np.isfinite(made[[0, 2]]).all()
    assert said.startswith("CoLES trained for 2 epochs of 1 step(s) (its budget, so longer training may give more) on ")
    assert torch.get_num_threads() == before
    (repeated, _), _ = train_coles(folder, asked, vocabulary, 8, training, epochs=2, work=str(tmp_path / "again"))
    np.testing.assert_array_equal(repeated, made)


def test_users_are_encoded_in_the_order_asked_for_and_strangers_have_no_number(tmp_path: Path) -> None:
    folder = aggregate_data.make_snapshot(tmp_path / "snapshot", users=100)
    scorer = load_model(versions.untrained_version(tmp_path / "out")).scorer
    assert isinstance(scorer, GurScorer)
    asked = [63, 1_000, 5]
    made = encode_users(folder, scorer, pa.array(asked))
    everyone = encode_users(folder, scorer, pa.array(range(100)))
    np.testing.assert_array_equal(made[[0, 2]], everyone[[63, 5]])
    assert np.isnan(made[1]).all()
    assert np.isfinite(everyone).all()
    assert len(np.unique(everyone, axis=0)) > 50
    assert encode_users(folder, scorer, pa.array([1_000])).shape == (1, 0)


def test_vectors_are_placed_at_the_users_whose_they_are() -> None:
    made = place(pa.array([3, 8, 1]), np.array([[3.0], [8.0], [1.0]]), pa.array([1, 2, 3]))
    np.testing.assert_array_equal(made, [[1.0], [np.nan], [3.0]])


def test_representations_are_put_together_and_told_by_date() -> None:
    one = Representations.of({"random": [np.zeros((2, 1)), np.ones((3, 1))]})
    two = Representations(vectors={"shop": [np.full((2, 2), 7.0), np.full((3, 2), 9.0)]}, left_out=["CoLES (why)"])
    both = one.with_(two)
    assert {name: vectors.max() for name, vectors in both.at(1).items()} == {"random": 1.0, "shop": 9.0}
    assert (list(both.vectors), both.left_out) == (["random", "shop"], ["CoLES (why)"])

"""Alignment: the motion is the best rigid one, is part of the version, and is refused without enough stable users."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.linalg import orthogonal_procrustes

from gur_spark.errors import ModelError
from gur_spark.models.gur.alignment import Procrustes
from gur_spark.models.gur.scorer import GurScorer
from gur_spark.models.gur.settings import GurModel
from gur_spark.registry.artefact import load_model
from gur_spark.training.version import TrainedVersion
from tests import versions
from tests.aggregate_data import make_snapshot

pytestmark = pytest.mark.any_engine

MODEL = versions.MODEL.model_copy(update={"dropout": 0.0})
TRAINING = versions.TRAINING.model_copy(update={"epochs": 2, "learning_rate": 3e-3, "validation_share": 0.2})


def fitted(new: np.ndarray, old: np.ndarray, widths: Any = None) -> Any:
    made = Procrustes(widths or [new.shape[1]])
    for part in np.array_split(np.arange(len(new)), 3):
        made.update(new[part], old[part])
    return made.fit("old")


def test_the_rotation_is_scipys_and_the_residual_that_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    new, old = rng.normal(size=(50, 4)) + 3, rng.normal(size=(50, 4)) - 1
    found = fitted(new, old)
    centred = new - new.mean(0), old - old.mean(0)
    expected, _ = orthogonal_procrustes(*centred)
    np.testing.assert_allclose(found.rotation_LL, expected, atol=1e-10)
    aligned = new @ found.rotation_LL + found.shift_L
    np.testing.assert_allclose(aligned.mean(0), old.mean(0))
    assert found.residual == pytest.approx(((aligned - old) ** 2).sum() / (centred[1] ** 2).sum())
    assert found.users == 50


def test_a_space_that_only_turned_and_moved_comes_back_whole() -> None:
    rng = np.random.default_rng(1)
    old = rng.normal(size=(40, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    found = fitted((old + 2) @ turn, old)
    assert found.residual == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose((old + 2) @ turn @ found.rotation_LL + found.shift_L, old, atol=1e-9)


def test_users_in_common_without_anything_in_common_leave_everything_over() -> None:
    assert fitted(np.zeros((9, 2)), np.random.default_rng(2).normal(size=(9, 2))).residual == pytest.approx(1)


def test_directions_are_turned_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    new, old = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 50, 4)) + 0.5)
    made = Procrustes([4], shift=False)
    made.update(new, old)
    found = made.fit("old")
    expected, _ = orthogonal_procrustes(new, old)
    np.testing.assert_allclose(found.rotation_LL, expected, atol=1e-10)
    assert not found.shift_L.any()
    left = ((new @ found.rotation_LL - old) ** 2).sum() / ((old - old.mean(0)) ** 2).sum()
    assert found.residual == pytest.approx(left)


def test_each_part_is_turned_by_itself_as_scipy_turns_it_alone() -> None:
    rng = np.random.default_rng(4)
    new, old = rng.normal(size=(2, 60, 5)) @ np.diag([3, 2, 1, 1, 1])
    found = fitted(new, old, [2, 3])
    expected = np.zeros((5, 5))
    for part in (slice(0, 2), slice(2, 5)):
        expected[part, part] = orthogonal_procrustes(*(x[:, part] - x[:, part].mean(0) for x in (new, old)))[0]
    np.testing.assert_allclose(found.rotation_LL, expected, atol=1e-10)
    left = ((new @ found.rotation_LL + found.shift_L - old) ** 2).sum()
    assert found.residual == pytest.approx(left / ((old - old.mean(0)) ** 2).sum())


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: Any) -> str:
    return make_snapshot(tmp_path_factory.mktemp("alignment") / "snapshot")


def trained(snapshot: str, out: Path, seed: int = 1, model: GurModel = MODEL, **more: Any) -> TrainedVersion:
    return versions.trained_version([snapshot], out, model, TRAINING.model_copy(update={"seed": seed}), **more)


def scorer_of(made: TrainedVersion) -> GurScorer:
    scorer = load_model(made.path).scorer
    assert isinstance(scorer, GurScorer)
    return scorer


@pytest.fixture(scope="module")
def older(snapshot: str, tmp_path_factory: Any) -> TrainedVersion:
    return trained(snapshot, tmp_path_factory.mktemp("older"))


def test_an_aligned_version_is_nearer_to_the_older_one_and_keeps_its_own_distances(
    snapshot: str, older: TrainedVersion, tmp_path: Path
) -> None:
    alone = trained(snapshot, tmp_path / "alone", seed=2)
    aligned = trained(snapshot, tmp_path / "aligned", seed=2, align_to=older.path)
    assert (aligned.card.aligned_to, alone.card.aligned_to) == (older.version, None)
    rows = pq.read_table(Path(snapshot) / "data").combine_chunks().to_batches()[0]
    found, own, before = (scorer_of(made).vectors(rows).astype(np.float64) for made in (aligned, alone, older))
    assert np.linalg.norm(found - before) < 0.8 * np.linalg.norm(own - before)
    distances = [np.linalg.norm(x[:50, None] - x[None, :50], axis=2) for x in (found, own)]
    np.testing.assert_allclose(*distances, atol=1e-4)
    assert 0 < aligned.metrics["alignment_residual"] < 1
    motion = scorer_of(aligned).motion
    assert motion is not None
    linear = MODEL.linear_width
    assert not motion[0][:linear, linear:].any()
    assert not motion[0][linear:, :linear].any()
    assert load_model(aligned.path).metrics == aligned.metrics


def test_embeddings_of_length_one_keep_it_when_they_are_aligned(
    snapshot: str, older: TrainedVersion, tmp_path: Path
) -> None:
    model = MODEL.model_copy(update={"unit_norm": True})
    with pytest.raises(ModelError, match="its unit_norm is False, in this training it is True"):
        trained(snapshot, tmp_path, model=model, align_to=older.path)
    first = trained(snapshot, tmp_path / "first", model=model)
    aligned = trained(snapshot, tmp_path / "second", seed=2, model=model, align_to=first.path)
    rows = pq.read_table(Path(snapshot) / "data").combine_chunks().to_batches()[0]
    for made in (first, aligned):
        np.testing.assert_allclose(np.linalg.norm(scorer_of(made).vectors(rows), axis=1), 1, atol=1e-6)
    motion = scorer_of(aligned).motion
    assert motion is not None
    assert not motion[1].any()


def test_a_version_with_a_linear_part_is_not_aligned_to_one_without(
    snapshot: str, older: TrainedVersion, tmp_path: Path
) -> None:
    without = MODEL.model_copy(update={"linear_dim": 0})
    said = (
        r"the first 3 numbers are linear \(rotated principal components\) in its embeddings, and no number is linear "
        "in these; linear and other numbers must not be mixed. Set model.linear_dim to 3"
    )
    with pytest.raises(ModelError, match=said):
        trained(snapshot, tmp_path, model=without, align_to=older.path)


def test_another_width_vocabulary_or_too_few_stable_users_are_refused(
    snapshot: str, older: TrainedVersion, tmp_path: Path
) -> None:
    wide = MODEL.model_copy(update={"latent_dim": 7})
    with pytest.raises(ModelError, match="its latent_dim is 6, in this training it is 7"):
        trained(snapshot, tmp_path, model=wide, align_to=older.path)
    few = make_snapshot(tmp_path / "few", users=30)
    with pytest.raises(ModelError, match=r"needs 30 stable users .* has \d+"):
        trained(few, tmp_path, align_to=older.path)
    assert not (tmp_path / "work").exists(), "it was trained first"
    another = replace(versions.VOCABULARY, hash="another")
    with pytest.raises(ModelError, match="its vocabulary is hash, in this training it is another"):
        trained(snapshot, tmp_path, vocabulary=another, align_to=older.path)
    assert not list(tmp_path.glob("**/card.json"))

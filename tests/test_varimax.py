"""Varimax: the rotation of other programs, no random rotation is better, and ties end somewhere fixed."""

from itertools import combinations

import numpy as np
import pytest

from gur_spark.arrays import Array
from gur_spark.statistics import varimax as module
from gur_spark.statistics.varimax import criterion, rounds, varimax


def by_gradient(loadings: Array) -> Array:
    """The algorithm of R and factor_analyzer: polar factors of the criterion's gradient."""
    rotation = np.eye(loadings.shape[1])
    for _ in range(2000):
        turned = loadings @ rotation
        left, _, right = np.linalg.svd(loadings.T @ (turned**3 - turned * (turned**2).mean(axis=0)))
        rotation = left @ right
    found: Array = loadings @ rotation
    return found


def loadings_of(seed: int, columns: int = 30, width: int = 4) -> Array:
    """Loadings with groups of columns, mixed by a rotation."""
    rng = np.random.default_rng(seed)
    simple = rng.normal(size=(columns, width)) * 0.1
    simple[np.arange(columns), np.arange(columns) % width] += 1 + rng.random(columns)
    mixed: Array = simple @ np.linalg.qr(rng.normal(size=(width, width))).Q
    return mixed


@pytest.mark.parametrize("seed", range(4))
def test_the_rotation_is_orthogonal_and_that_of_another_algorithm(seed: int) -> None:
    loadings = loadings_of(seed)
    rotation = varimax(loadings)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-12)
    found, expected = loadings @ rotation, by_gradient(loadings)
    assert criterion(found) == pytest.approx(criterion(expected), rel=1e-8)
    # The dimensions are the same, up to signs and order.
    common = np.abs(found.T @ expected) / np.outer(np.linalg.norm(found, axis=0), np.linalg.norm(expected, axis=0))
    np.testing.assert_allclose(common.max(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("width", [0, 1, 2, 3, 6, 7])
def test_a_sweep_meets_each_pair_once_and_a_round_no_dimension_twice(width: int) -> None:
    met = [list(zip(left.tolist(), right.tolist(), strict=True)) for left, right in rounds(width)]
    assert sorted(tuple(sorted(pair)) for pairs in met for pair in pairs) == list(combinations(range(width), 2))
    assert all(len({side for pair in pairs for side in pair}) == 2 * len(pairs) for pairs in met)


def test_no_random_rotation_is_better() -> None:
    loadings, rng = loadings_of(7), np.random.default_rng(0)
    best = criterion(loadings @ varimax(loadings))
    assert all(criterion(loadings @ np.linalg.qr(rng.normal(size=(4, 4))).Q) < best for _ in range(300))


def test_the_rotation_is_the_one_derived_by_hand_where_all_loadings_are_ties() -> None:
    loadings = np.array([[1.0, 1.0], [1.0, -1.0]])
    found = np.abs(loadings @ varimax(loadings))
    np.testing.assert_allclose(np.sort(found, axis=0), [[0, 0], [2**0.5, 2**0.5]], atol=1e-12)


@pytest.mark.parametrize("loadings", [np.zeros((5, 2)), np.ones((3, 1)), np.zeros((4, 0)), np.eye(3)])
def test_loadings_without_a_simple_structure_still_have_a_rotation(loadings: Array) -> None:
    rotation = varimax(loadings)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(loadings.shape[1]), atol=1e-12)


def test_the_smallest_rows_of_very_many_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    large, rng = loadings_of(1), np.random.default_rng(1)
    loadings = np.concatenate([large, rng.normal(size=(300, 4)) * 1e-3])
    everything = varimax(loadings)
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    np.testing.assert_allclose(varimax(loadings), everything, atol=1e-4)

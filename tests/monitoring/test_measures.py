"""Measures of two samples against naive code and trusted libraries, and their properties for any samples."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from gur_spark.splits import held_out
from gur_spark.statistics import measures
from gur_spark.statistics.measures import Sample
from tests.test_gates import MOVED, TURN, USERS, X


def sample(before: np.ndarray, after: np.ndarray) -> Sample:
    return Sample(np.arange(len(before)), before, after)


def test_the_population_stability_index_is_the_number_derived_by_hand() -> None:
    before, after = np.array([0.0, 0.0, 1.0, 1.0] * 50), np.array([0.0, 1.0, 1.0, 1.0] * 50)
    assert measures.values_psi(before, after) == pytest.approx(math.log(3) / 4)


def naive_psi(before: list[float], after: list[float]) -> float:
    """Users counted one by one in the bins of the docstrings."""
    bins = min(max(min(len(before), len(after)) // 100, 2), 10)
    edges = set()
    for n in range(1, bins):
        edge = float(np.quantile(before, n / bins))
        edges |= {edge, math.nextafter(edge, -math.inf)} if before.count(edge) >= len(before) / bins else {edge}
    ends = [-math.inf, *sorted(edges), math.inf]
    total = 0.0
    for low, high in pairwise(ends):
        n, m = (sum(low < x <= high for x in side) for side in (before, after))
        if n or m:
            p, q = max(n, 0.5) / len(before), max(m, 0.5) / len(after)
            total += (q - p) * math.log(q / p)
    return total


@pytest.mark.parametrize("users", [(250, 250), (1000, 400), (1200, 1100)])
@pytest.mark.parametrize("shift", [0.0, 0.3, 40.0])
def test_the_index_of_numbers_equals_counting_one_by_one(users: tuple[int, int], shift: float) -> None:
    rng = np.random.default_rng(7)
    for draw in (lambda n: rng.normal(size=n), lambda n: rng.poisson(0.7, n).astype(float), lambda n: np.zeros(n)):
        before, after = draw(users[0]), draw(users[1]) + shift
        assert measures.values_psi(before, after) == pytest.approx(naive_psi(before.tolist(), after.tolist()))


COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=12)


@given(COUNTS, st.data())
@settings(max_examples=200, deadline=None)
def test_it_is_finite_symmetric_at_least_0_and_0_of_equal_shares(counts: list[int], data: st.DataObject) -> None:
    before = np.array([1.0, *counts])
    after = np.array([data.draw(st.integers(0, 10**6)) for _ in counts] + [1.0])
    value = measures.psi(before, after)
    assert np.isfinite(value)
    assert value >= 0
    assert value == pytest.approx(measures.psi(after, before))
    assert measures.psi(before, before) == 0
    assert measures.psi(before, before * 2) == pytest.approx(0, abs=1e-12)


def test_a_constant_that_falls_or_rises_leaves_its_bin() -> None:
    constant = np.full(500, 5.0)
    assert measures.values_psi(constant, constant) == 0
    assert measures.values_psi(constant, constant - 1) > 1
    assert measures.values_psi(constant, constant + 1) > 1


def test_chance_alone_stays_far_below_a_small_change() -> None:
    rng = np.random.default_rng(5)
    for users in (200, 1000, 5000):
        values = [measures.values_psi(rng.normal(size=users), rng.normal(size=users)) for _ in range(50)]
        assert np.mean(values) < 0.03
        assert max(values) < 0.1


def test_the_area_under_the_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(3)
    negative, positive = rng.integers(0, 9, 70).astype(float), rng.integers(2, 12, 90).astype(float)
    expected = roc_auc_score([0] * 70 + [1] * 90, np.concatenate([negative, positive]))
    assert measures.auc(negative, positive) == pytest.approx(expected)


def test_neighbours_are_those_of_all_distances() -> None:
    kept = []
    for user in range(20):
        near = [set(np.argsort(np.linalg.norm(x - x[user], axis=1))[1:11].tolist()) for x in (X, MOVED)]
        kept.append(len(near[0] & near[1]) / 10)
    assert measures.neighbours_kept(sample(X, MOVED), canaries=20) == pytest.approx(np.mean(kept))
    assert measures.neighbours_kept(sample(X, X @ TURN), canaries=20) == 1


def test_a_shift_is_told_apart_and_noise_is_not() -> None:
    assert measures.norm_ratio(sample(X, X * 2)) == measures.norm_ratio(sample(X * 2, X)) == pytest.approx(2)
    assert measures.ratio(0, 3) == math.inf
    assert measures.domain_auc(sample(X, MOVED)) == pytest.approx(0.5, abs=0.06)
    fitted = held_out(np.arange(USERS), 0.5, "domain classifier")
    both, labels = np.concatenate([X, X + 2]), np.repeat([0, 1], USERS)
    side = np.tile(fitted, 2)
    trusted = LinearDiscriminantAnalysis().fit(both[side], labels[side]).decision_function(both[~side])
    expected = roc_auc_score(labels[~side], trusted)
    assert measures.domain_auc(sample(X, X + 2)) == pytest.approx(expected, abs=0.01)
    assert expected > 0.8
    assert measures.projections_psi(sample(X, MOVED)) < 0.1
    assert measures.projections_psi(sample(X, X + 2)) > 0.25

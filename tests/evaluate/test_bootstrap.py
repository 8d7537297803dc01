"""Weighted metrics agree with scikit-learn, resample by resample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from gur_spark.statistics import bootstrap
from gur_spark.statistics.bootstrap import (
    accuracy,
    auc,
    average_precision,
    interval,
    macro_auc,
    r2,
    resamples,
    spearman,
)

ONCE = np.ones((1, 4), dtype=np.uint16)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), users=st.integers(4, 60), levels=st.integers(1, 12))
def test_auc_and_average_precision_are_scikit_learns_with_ties_and_weights(seed, users, levels):
    rng = np.random.default_rng(seed)
    positive = rng.random(users) < 0.4
    score = rng.integers(0, levels, users) / levels
    weights = resamples(users, 3, seed)
    ours = zip(auc(positive, score, weights), average_precision(positive, score, weights), weights, strict=True)
    for ours_auc, ours_precision, weight in ours:
        positives, negatives = weight[positive].sum(), weight[~positive].sum()
        drawn = weight > 0
        if positives:
            expected = average_precision_score(positive[drawn], score[drawn], sample_weight=weight[drawn])
            assert ours_precision == pytest.approx(expected)
        else:
            assert np.isnan(ours_precision)
        if positives and negatives:
            expected = roc_auc_score(positive[drawn], score[drawn], sample_weight=weight[drawn])
            assert ours_auc == pytest.approx(expected)
        else:
            assert np.isnan(ours_auc)


def test_auc_by_hand():
    # Positives 3 and 1, negatives 2 and 1: 3 beats both, 1 loses to 2 and ties with 1: (1 + 1 + 0 + 1/2) / 4.
    positive, score = np.array([True, False, True, False]), np.array([3.0, 2.0, 1.0, 1.0])
    assert auc(positive, score, ONCE).tolist() == [2.5 / 4]
    # Precision 1 at the first positive, 2/4 at the second, which is found with its tie.
    assert average_precision(positive, score, ONCE).tolist() == [(1 + 2 / 4) / 2]


def test_a_weight_is_a_repetition():
    rng = np.random.default_rng(0)
    positive, score = rng.random(30) < 0.5, rng.integers(0, 9, 30).astype(float)
    weight = resamples(30, 1, 5)
    repeated = np.repeat(np.arange(30), weight[0])
    once = np.ones((1, len(repeated)), dtype=np.uint16)
    for metric in (auc, average_precision):
        assert metric(positive, score, weight) == pytest.approx(metric(positive[repeated], score[repeated], once))


def test_macro_auc_and_accuracy_of_three_classes_are_scikit_learns():
    rng = np.random.default_rng(1)
    label = np.arange(60) % 3
    score = rng.random((60, 3)) + np.eye(3)[label] / 2
    score /= score.sum(axis=1, keepdims=True)
    weights = resamples(60, 5, 2)
    for weight, ours_auc, ours_accuracy in zip(
        weights, macro_auc(label, score, weights), accuracy(label, score, weights), strict=True
    ):
        repeated = np.repeat(np.arange(60), weight)
        assert ours_auc == pytest.approx(roc_auc_score(label[repeated], score[repeated], multi_class="ovr"))
        assert ours_accuracy == pytest.approx((score.argmax(axis=1) == label)[repeated].mean())


def test_a_class_that_is_not_in_a_resample_does_not_count_there():
    label, score = np.array([0, 0, 1, 2]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0, 0, 1]])
    without_two = np.array([[1, 1, 1, 0]], dtype=np.uint16)
    # 0 against 1: both zeros above; 1 against 0: 0.8 above 0.1 and 0.7.
    assert macro_auc(label, score, without_two).tolist() == [1.0]


def test_a_resample_draws_as_many_users_as_there_are_the_same_for_the_same_seed():
    weights = resamples(50, 20, seed=1)
    assert weights.sum(axis=1).tolist() == [50] * 20
    assert np.array_equal(weights, resamples(50, 20, seed=1))
    assert not np.array_equal(weights, resamples(50, 20, seed=2))


def test_chunks_do_not_change_a_metric(monkeypatch):
    rng = np.random.default_rng(3)
    positive, score, weights = rng.random(40) < 0.5, rng.random(40), resamples(40, 11, 0)
    whole = auc(positive, score, weights)
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    assert np.array_equal(auc(positive, score, weights), whole)


def test_an_interval_is_the_middle_of_the_resamples_that_are_defined():
    assert interval(np.array([*np.linspace(0, 1, 201), np.nan])) == pytest.approx((0.025, 0.975))


def test_r2_and_spearman_are_scikit_learns_and_scipys_of_each_resample_with_ties(monkeypatch):
    rng = np.random.default_rng(7)
    value = rng.integers(0, 6, 50).astype(float)
    predicted = np.round(value + rng.normal(size=50))
    weights = resamples(50, 9, 3)
    monkeypatch.setattr(bootstrap, "CHUNK", 120)
    for weight, ours_r2, ours_rank in zip(
        weights, r2(value, predicted, weights), spearman(value, predicted, weights), strict=True
    ):
        drawn = np.repeat(np.arange(50), weight)
        assert ours_r2 == pytest.approx(r2_score(value[drawn], predicted[drawn]))
        assert ours_rank == pytest.approx(spearmanr(value[drawn], predicted[drawn]).statistic)


def test_what_is_not_defined_is_nan():
    same, other = np.ones(4), np.arange(4.0)
    assert np.isnan([*r2(same, other, ONCE), *spearman(same, other, ONCE), *interval(np.array([np.nan]))]).all()

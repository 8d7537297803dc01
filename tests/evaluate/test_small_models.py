"""Linear models choose their penalty among the users whom they are fitted on, for each representation."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

from gur_spark.evaluate import small_models
from gur_spark.evaluate.small_models import FOLDS, PRIOR_VARIANCES, logistic_regression, ridge_regression

WIDTH = 60
SCALES = np.geomspace(8, 0.05, WIDTH)
"""As of principal components."""


def drawn(users, noise=2.0, seed=0):
    """Columns of which the first two count, and the answer that they make."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(users, WIDTH))
    return x, x[:, 0] + x[:, 1] + noise * rng.normal(size=users)


def classifier(variance):
    return LogisticRegression(C=variance, max_iter=500, solver="newton-cg")


def plainly_chosen(x, y, folds, model, loss):
    """The variance with the least loss over folds, in a plain loop."""
    mean = {
        variance: np.mean([loss(model(variance).fit(x[fit], y[fit]), x[asked], y[asked]) for fit, asked in folds])
        for variance in PRIOR_VARIANCES
    }
    return min(mean, key=mean.__getitem__)


def log_loss(fitted, x, label):
    return -np.log(fitted.predict_proba(x)[np.arange(len(label)), label]).mean()


def plainly_chosen_by_label(x, label):
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, label)
    return plainly_chosen(x, label, list(folds), classifier, log_loss)


@pytest.mark.parametrize("users", [120, 2000])
def test_logistic_regression_has_the_penalty_that_a_plain_loop_over_folds_finds(users):
    x, amount = drawn(users)
    label, (x_test, _) = (amount > 0).astype(np.int64), drawn(50, seed=1)
    expected = classifier(plainly_chosen_by_label(x, label)).fit(x, label).predict_proba(x_test)
    np.testing.assert_allclose(logistic_regression(x, label, x_test, 2, 0), expected, atol=1e-9)


@pytest.mark.parametrize("scales", [1.0, SCALES])
@pytest.mark.parametrize("users", [90, 2000])
def test_ridge_regression_has_the_penalty_that_a_plain_loop_over_folds_finds(users, scales):
    x, amount = drawn(users)
    x_test, _ = drawn(50, seed=1)
    x, x_test = x * scales, x_test * scales
    low, high = amount.min(), amount.max()

    def model(variance):
        return Ridge(alpha=1 / variance, solver="cholesky")

    def error_of_clipped(fitted, x, amount):
        return ((fitted.predict(x).clip(low, high) - amount) ** 2).mean()

    folds = list(KFold(FOLDS, shuffle=True, random_state=0).split(x))
    variance = plainly_chosen(x, amount, folds, model, error_of_clipped)
    expected = model(variance).fit(x, amount).predict(x_test).clip(low, high)
    np.testing.assert_allclose(ridge_regression(x, amount, x_test, 0), expected, atol=1e-5)


def test_one_user_far_out_in_a_rare_column_does_not_decide_on_the_penalty():
    x, amount = drawn(900, noise=0.2)
    rare = np.zeros((900, 1))
    rare[[3, 500]] = [[1e-3], [1e6]]
    said, alone = (ridge_regression(columns, amount, columns, 0) for columns in (np.hstack([x, rare]), x))
    np.testing.assert_allclose(np.delete(said, [3, 500]), np.delete(alone, [3, 500]), atol=0.05)


def test_a_clear_signal_gets_a_lighter_penalty_than_a_noisy_one():
    chosen = []
    for noise in (8.0, 0.2):
        x, amount = drawn(300, noise)
        label = (amount > 0).astype(np.int64)
        chosen.append(variance_of(logistic_regression(x, label, x, 2, 0), x, label))
    assert chosen[0] < chosen[1]


def test_some_users_choose_and_all_are_learned_from(monkeypatch):
    x, amount = drawn(3000, noise=4.0)
    label = (amount > 0).astype(np.int64)
    by_all = variance_of(logistic_regression(x, label, x, 2, 0), x, label)
    monkeypatch.setattr(small_models, "CHOSEN_BY", 60)
    by_some = variance_of(logistic_regression(x, label, x, 2, 0), x, label)
    some = small_models._some(x, 0)
    assert len(np.unique(some)) == 60
    assert by_some == plainly_chosen_by_label(x[some], label[some]) != by_all


def variance_of(said, x, label):
    """With which the model that was fitted on all of these users says so."""
    apart = {v: np.abs(classifier(v).fit(x, label).predict_proba(x) - said).max() for v in PRIOR_VARIANCES}
    nearest = min(apart, key=apart.__getitem__)
    assert apart[nearest] < 1e-9
    return nearest


@pytest.mark.parametrize("rare", [1, 2])
def test_a_class_of_a_user_or_two_is_learned_and_takes_no_part_in_the_choice(rare):
    x, amount = drawn(600)
    label = (amount > 0).astype(np.int64)
    label[:rare] = 2
    common = label < 2
    variance = plainly_chosen_by_label(x[common], label[common])
    said = logistic_regression(x, label, x, 3, 0)
    np.testing.assert_allclose(said, classifier(variance).fit(x, label).predict_proba(x), atol=1e-9)


def test_with_nothing_to_choose_by_the_variance_is_a_hundredth():
    x, _ = drawn(8)
    label = np.array([0] * 6 + [1] * 2)
    said = logistic_regression(x, label, x, 2, 0)
    np.testing.assert_allclose(said, classifier(0.01).fit(x, label).predict_proba(x), atol=1e-9)

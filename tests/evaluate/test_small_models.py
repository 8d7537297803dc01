"""Linear models choose their penalty among the users whom they are fitted on, for each representation."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

from gur_spark.evaluate import small_models
from gur_spark.evaluate.small_models import FOLDS, PRIOR_VARIANCES, logistic_regression, ridge_regression

RNG = np.random.default_rng(0)
WIDTH = 60


def drawn(users, noise=2.0):
    """Columns of which the first two count, and what they amount to."""
    x = RNG.normal(size=(users, WIDTH))
    return x, x[:, 0] + x[:, 1] + noise * RNG.normal(size=users)


def plainly_chosen(x, y, folds, model, loss):
    """The variance with the least loss over folds, in a plain loop."""
    mean = {
        variance: np.mean([loss(model(variance).fit(x[fit], y[fit]), x[asked], y[asked]) for fit, asked in folds])
        for variance in PRIOR_VARIANCES
    }
    return min(mean, key=mean.__getitem__)


@pytest.mark.parametrize("users", [120, 2000])
def test_logistic_regression_has_the_penalty_that_a_plain_loop_over_folds_finds(users):
    x, amount = drawn(users)
    label, (x_test, _) = (amount > 0).astype(np.int64), drawn(50)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=7).split(x, label))

    def model(variance):
        return LogisticRegression(C=variance, max_iter=500, solver="newton-cg")

    def log_loss(fitted, asked, label):
        return -np.log(fitted.predict_proba(asked)[np.arange(len(label)), label]).mean()

    variance = plainly_chosen(x, label, folds, model, log_loss)
    expected = model(variance).fit(x, label).predict_proba(x_test)
    np.testing.assert_allclose(logistic_regression(x, label, x_test, 2, 7), expected, atol=1e-9)


@pytest.mark.parametrize("users", [90, 2000])
def test_ridge_regression_has_the_penalty_that_a_plain_loop_over_folds_finds(users):
    x, amount = drawn(users)
    x_test, _ = drawn(50)
    folds = list(KFold(FOLDS, shuffle=True, random_state=7).split(x))

    def model(variance):
        return Ridge(alpha=1 / variance)

    def squared_error(fitted, asked, amount):
        return ((fitted.predict(asked) - amount) ** 2).mean()

    variance = plainly_chosen(x, amount, folds, model, squared_error)
    expected = model(variance).fit(x, amount).predict(x_test).clip(amount.min(), amount.max())
    np.testing.assert_allclose(ridge_regression(x, amount, x_test, 7), expected, atol=1e-3)


def test_a_clear_signal_gets_a_lighter_penalty_than_a_noisy_one():
    chosen = []
    for noise in (8.0, 0.2):
        x, amount = drawn(300, noise)
        label = (amount > 0).astype(np.int64)
        said = logistic_regression(x, label, x, 2, 0)
        fits = {v: LogisticRegression(C=v, max_iter=500, solver="newton-cg").fit(x, label) for v in PRIOR_VARIANCES}
        chosen.append(min(fits, key=lambda v: np.abs(fits[v].predict_proba(x) - said).max()))
    assert chosen[0] < chosen[1]


def test_some_users_choose_and_all_are_learned_from(monkeypatch):
    x, amount = drawn(3000)
    label = (amount > 0).astype(np.int64)
    monkeypatch.setattr(small_models, "CHOSEN_BY", 500)
    said = logistic_regression(x, label, x, 2, 0)
    fits = [LogisticRegression(C=v, max_iter=500, solver="newton-cg").fit(x, label) for v in PRIOR_VARIANCES]
    assert min(np.abs(fit.predict_proba(x) - said).max() for fit in fits) < 1e-9


@pytest.mark.parametrize("rare", [1, 2])
def test_a_class_of_a_user_or_two_is_learned_all_the_same(rare):
    x, _ = drawn(30)
    label = np.array([2] * rare + [0, 1] * 14 + [0] * (2 - rare))
    said = logistic_regression(x, label, x, 3, 0)
    assert said.shape == (30, 3)
    np.testing.assert_allclose(said.sum(1), 1)

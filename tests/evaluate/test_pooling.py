"""Several splits become one figure, and its interval is that of users, however many splits tested them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gur_spark.evaluate.pooling import Pool, Split, differences
from gur_spark.evaluate.segments import Segments
from gur_spark.evaluate.tasks import Task

USERS = 200
RNG = np.random.default_rng(0)
CHURN = Task("churn", ("active", "churned"), (RNG.random(USERS) < 0.4).astype(np.int64))
SAID = CHURN.label_N + RNG.normal(0, 1, USERS)


def split_of(test, said=SAID):
    scores = np.stack([-said[test], said[test]], axis=1)
    return Split(test, {("trees", "embedding"): scores, ("trees", "PCA"): scores[::-1]})


def test_a_figure_is_the_mean_over_the_splits_and_each_one_is_kept():
    tests = [np.arange(0, 80), np.arange(40, 160)]
    scores, found = Pool(CHURN, [split_of(test) for test in tests], 30, seed=1).scores(CHURN.metrics[:1])
    expected = [roc_auc_score(CHURN.label_N[test], SAID[test]) for test in tests]
    [score] = [s for s in scores if s.representation == "embedding"]
    assert score.by_seed == pytest.approx(expected)
    assert score.value == pytest.approx(np.mean(expected))
    [apart] = differences("churn", found, [("embedding", "PCA"), ("embedding", "CoLES")])
    assert apart.value == pytest.approx(score.value - next(s.value for s in scores if s.representation == "PCA"))
    assert apart.low <= apart.value <= apart.high


def test_the_same_split_twice_is_no_new_evidence():
    test = np.arange(0, USERS, 2)
    once, twice = (Pool(CHURN, [split_of(test)] * times, 100, seed=1).scores(CHURN.metrics)[0] for times in (1, 2))
    np.testing.assert_allclose(*([(s.value, s.low, s.high) for s in scores] for scores in (once, twice)))


def test_a_resample_draws_a_user_as_often_in_every_split_that_tests_them():
    tests = [np.array([5, 7, 9]), np.array([3, 7])]
    pool = Pool(CHURN, [split_of(test) for test in tests], 10, seed=2)
    assert pool.tested_U.tolist() == [3, 5, 7, 9]
    asked = []

    def metric(labels, said, weights):
        asked.append(weights)
        return weights.mean(axis=1)

    pool.scores([("weight", metric)])
    drawn = [weights for weights in asked if len(weights) == 10][:2]
    assert np.array_equal(drawn[0][:, 1], drawn[1][:, 1])


def test_a_segment_without_users_or_with_one_class_has_no_figure():
    pool = Pool(CHURN, [split_of(np.arange(USERS))], 10, seed=1)
    for members in (np.zeros(USERS, bool), CHURN.label_N == 1):
        scores, _ = pool.scores(CHURN.metrics[:1], "cold", members)
        assert scores == []


@pytest.mark.parametrize(
    ("events", "bounds", "sizes"),
    [
        ([0, 1, 2, 3, 4, 5, 6], None, [3, 2, 2]),
        ([0, 0, 0], None, [3, 0, 0]),
        ([1, 1, 1, 1], None, [0, 0, 4]),
        ([0, 4, 5, 20, 30], (5, 20), [2, 1, 2]),
    ],
    ids=["terciles of the active", "nobody is active", "all alike", "declared"],
)
def test_users_are_cold_light_or_heavy(events, bounds, sizes):
    found = Segments.of(np.array(events), bounds)
    assert [int(found.members(name).sum()) for name in ("cold", "light", "heavy")] == sizes

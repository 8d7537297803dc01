"""Several splits become one figure; its interval is over users, however many splits tested them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gur_spark.errors import EvaluationError
from gur_spark.evaluate.pooling import DatedQuestion, Pool, Split, differences
from gur_spark.evaluate.questions import Classification
from gur_spark.evaluate.segments import Segments, merged

USERS = 200
RNG = np.random.default_rng(0)
CHURN = Classification("churn", ("active", "churned"), (RNG.random(USERS) < 0.4).astype(np.int64))
SAID = CHURN.label_N + RNG.normal(0, 1, USERS)


USERS_N = np.arange(USERS)


def split_of(test, said=SAID, asked=None):
    scores = np.stack([-said[test], said[test]], axis=1)
    return Split(
        asked or DatedQuestion(CHURN, USERS_N),
        test[:0],
        test,
        {("trees", "embedding"): scores, ("trees", "PCA"): scores[::-1]},
    )


def test_a_figure_is_the_mean_over_the_splits_and_each_one_is_kept():
    tests = [np.arange(0, 80), np.arange(40, 160)]
    scores, found = Pool([split_of(test) for test in tests], 30, seed=1).scores(1)
    expected = [roc_auc_score(CHURN.label_N[test], SAID[test]) for test in tests]
    [score] = [s for s in scores if s.representation == "embedding"]
    assert score.by_seed == pytest.approx(expected)
    assert score.value == pytest.approx(np.mean(expected))
    [apart] = differences("churn", found, [("embedding", "PCA"), ("embedding", "CoLES")])
    assert apart.value == pytest.approx(score.value - next(s.value for s in scores if s.representation == "PCA"))
    assert apart.low <= apart.value <= apart.high


def test_the_same_split_twice_is_no_new_evidence_and_nor_is_the_same_date():
    test = np.arange(0, USERS, 2)
    same = DatedQuestion(CHURN, USERS_N)
    trials = [[split_of(test)], [split_of(test)] * 2, [split_of(test), split_of(test, asked=same)]]
    once, twice, dates = (Pool(splits, 100, seed=1).scores(2)[0] for splits in trials)
    for other in (twice, dates):
        np.testing.assert_allclose(*([(s.value, s.low, s.high) for s in scores] for scores in (once, other)))


def test_other_users_at_another_date_make_the_interval_narrower():
    test = np.arange(0, USERS, 2)
    others = DatedQuestion(CHURN, USERS_N + USERS)
    alone, both = (
        Pool(splits, 400, seed=1).scores(1)[0][0]
        for splits in ([split_of(test)], [split_of(test), split_of(test, asked=others)])
    )
    assert both.value == pytest.approx(alone.value)
    assert (both.high - both.low) / (alone.high - alone.low) == pytest.approx(2**-0.5, rel=0.2)


def test_a_resample_draws_a_user_as_often_in_every_split_that_tests_them():
    # At the second date, the rows are those of other users: 7 is in row 1.
    asked = [DatedQuestion(WEIGHED, USERS_N), DatedQuestion(WEIGHED, np.array([3, 7]))]
    tests = [np.array([5, 7, 9]), np.array([0, 1])]
    pool = Pool([split_of(test, asked=one) for test, one in zip(tests, asked, strict=True)], 10, seed=2)
    assert pool.tested_U.tolist() == [3, 5, 7, 9]
    ASKED.clear()
    pool.scores(1)
    drawn = [weights for weights in ASKED if len(weights) == 10][:2]
    assert np.array_equal(drawn[0][:, 1], drawn[1][:, 1])


ASKED = []


class Weighed(Classification):
    """A task whose metric keeps the weights it is asked with."""

    @property
    def metrics(self):
        def metric(labels, said, weights):
            ASKED.append(weights)
            return weights.mean(axis=1)

        return (("weight", metric),)


WEIGHED = Weighed("churn", CHURN.classes, CHURN.label_N)


def test_a_segment_without_users_or_with_one_class_has_no_figure():
    for cold in (np.zeros(USERS, bool), CHURN.label_N == 1):
        asked = DatedQuestion(CHURN, USERS_N, Segments((1, 2), np.where(cold, 0, 2)))
        pool = Pool([split_of(np.arange(USERS), asked=asked)], 10, seed=1)
        assert pool.scores(1, "cold")[0] == []
        assert pool.tested("cold") == cold.sum()


def test_a_task_that_has_more_classes_at_one_date_than_at_another_is_refused():
    three = Classification("churn", ("active", "churned", "gone"), np.arange(USERS) % 3)
    other = Classification("churn", ("churned", "gone"), CHURN.label_N)
    for task, kind in ((three, "many classes"), (other, "the classes churned and gone")):
        with pytest.raises(
            EvaluationError, match=f"the classes active and churned at one date and of {kind} at another"
        ):
            Pool([split_of(np.arange(9)), split_of(np.arange(9), asked=DatedQuestion(task, USERS_N))], 10, seed=1)


def test_a_date_without_a_representation_takes_it_from_the_figures_and_a_split_without_answers_takes_nothing():
    whole, rest = split_of(np.arange(USERS)), split_of(np.arange(USERS))
    rest = Split(
        rest.dated, rest.train, rest.test, {key: said for key, said in rest.predictions.items() if key[1] != "PCA"}
    )
    assert {score.representation for score in Pool([whole, rest], 10, seed=1).scores(1)[0]} == {"embedding"}
    assert {score.representation for score in Pool([rest, whole], 10, seed=1).scores(1)[0]} == {"embedding"}
    # One of two dates has only churned users in the segment.
    half = np.arange(USERS) % 2 == 0
    mixed = DatedQuestion(CHURN, USERS_N, Segments((1, 2), np.where(half, 0, 2)))
    churned = DatedQuestion(CHURN, USERS_N, Segments((1, 2), np.where(CHURN.label_N == 1, 0, 2)))
    tests = np.arange(USERS)
    alone, both = (
        next(s for s in Pool(splits, 50, seed=1).scores(1, "cold")[0] if s.representation == "embedding")
        for splits in ([split_of(tests, asked=mixed)], [split_of(tests, asked=mixed), split_of(tests, asked=churned)])
    )
    assert both.value == alone.value
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high))


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


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([40, 50, 60], {("cold",): 40, ("light",): 50, ("heavy",): 60}),
        ([0, 50, 60], {("cold", "light"): 50, ("heavy",): 60}),
        ([40, 7, 60], {("cold", "light"): 47, ("heavy",): 60}),
        ([90, 50, 29], {("cold",): 90, ("light", "heavy"): 79}),
        ([20, 20, 60], {("cold", "light"): 40, ("heavy",): 60}),
        ([0, 0, 300], {}),
        ([9, 9, 9], {}),
    ],
)
def test_a_small_segment_is_merged_with_its_smaller_neighbour_and_one_alone_is_everyone(sizes, expected):
    of = dict(zip(("cold", "light", "heavy"), sizes, strict=True))
    assert merged(lambda names: sum(of[name] for name in names)) == expected


def test_merged_segments_are_scored_together():
    segments = Segments((1, 2), np.arange(USERS) % 3)
    pool = Pool([split_of(np.arange(USERS), asked=DatedQuestion(CHURN, USERS_N, segments))], 10, seed=1)
    both = pool.scores(1, "cold", "heavy")[0][0]
    test = np.flatnonzero(np.arange(USERS) % 3 != 1)
    assert (both.segment, both.value) == ("cold + heavy", pytest.approx(roc_auc_score(CHURN.label_N[test], SAID[test])))
    assert pool.tested("cold", "heavy") == len(test)

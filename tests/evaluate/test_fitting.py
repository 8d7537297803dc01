"""Fits of a split: with fewer labels, a positive class of choice, and a word on a model that ran out of steps."""

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.config.evaluation import Evaluation, Label
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import fitting, small_models
from gur_spark.evaluate.fitting import Fitter, sample
from gur_spark.evaluate.pooling import DatedQuestion
from gur_spark.evaluate.probe import Answered, measure
from gur_spark.evaluate.questions import Classification, Quantity, question
from gur_spark.splits import held_out

USERS = 400
RNG = np.random.default_rng(5)
LABEL_N = (RNG.random(USERS) < 0.3).astype(np.int64)
VIP = Classification("vip", ("no", "yes"), LABEL_N)
SPENT = Quantity("spent", np.where(LABEL_N, RNG.normal(size=USERS), 0.0))
X = np.column_stack([LABEL_N + RNG.normal(size=USERS), RNG.normal(size=(USERS, 4))])
TRAIN = ~held_out(np.arange(USERS), 0.4, "fitting")
MADE = {"raw windows": X[:, 1:], "PCA": X[:, :2], "random encoder": X[:, 2:], "embedding": X, "raw + embedding": X}


def settings(**changes):
    return Evaluation(horizon_days=28, test_share=0.4, max_users=1000, seed=1, bootstrap=20, **changes)


def test_a_sample_has_its_share_of_each_class_and_a_greater_one_only_adds_users():
    train = np.flatnonzero(TRAIN)
    samples = [sample(VIP, train, share, 3) for share in (0.001, 0.1, 0.3)]
    for some, share in zip(samples, (0.001, 0.1, 0.3), strict=True):
        for k in (0, 1):
            assert (LABEL_N[some] == k).sum() == np.ceil(share * (LABEL_N[train] == k).sum())
        assert set(some) <= set(train)
    assert set(samples[0]) < set(samples[1]) < set(samples[2])
    assert not np.array_equal(samples[2], sample(VIP, train, 0.3, 4))
    assert len(sample(SPENT, train, 0.1, 3)) == np.ceil(0.1 * len(train))


def test_with_fewer_labels_the_same_test_users_are_asked_of_three_representations():
    found = Fitter(1).splits(DatedQuestion(VIP, np.arange(USERS)), MADE, TRAIN, 0, [0.2])
    full, few = found[1.0], found[0.2]
    assert np.array_equal(full.test, few.test)
    assert np.array_equal(few.train, sample(VIP, full.train, 0.2, 1))
    assert full.representations == set(MADE)
    assert few.representations == {"raw windows", "PCA", "embedding"}
    expected = small_models.logistic_regression(X[few.train], LABEL_N[few.train], X[few.test], 2, 1)
    np.testing.assert_allclose(few.predictions["logistic regression", "embedding"], expected)


def test_a_share_that_does_not_answer_the_task_is_left_out():
    equal = Quantity("spent", np.where(np.arange(USERS) % 100 == 3, 1.0, 0.0))
    found = Fitter(1).splits(DatedQuestion(equal, np.arange(USERS)), MADE, TRAIN, 0, [0.004, 0.9])
    assert list(found) == [1.0, 0.9]


def test_a_penalty_is_chosen_in_the_first_split_and_used_in_all(monkeypatch):
    asked = []

    def variance(x, label, classes, seed):
        asked.append(x.shape)
        return 0.1

    monkeypatch.setattr(fitting, "logistic_variance", variance)
    fitter = Fitter(1)
    for number in (0, 1, 2):
        train_N = ~held_out(np.arange(USERS), 0.4, f"split {number}")
        fitter.splits(DatedQuestion(VIP, np.arange(USERS)), MADE, train_N, number, [])
    assert len(asked) == len(MADE)
    assert {key[1] for key in fitter.variances} == set(MADE)


def test_a_model_that_runs_out_of_steps_and_a_share_that_some_split_lacks_are_told_of(monkeypatch):
    monkeypatch.setattr(small_models, "SOLVER", {"solver": "newton-cg", "max_iter": 1})
    answered, fitter = Answered({"vip": {}}), Fitter(1)
    fitter.splits(DatedQuestion(VIP, np.arange(USERS)), {"embedding": X}, TRAIN, 0, [])
    answered.stopped |= fitter.stopped
    answered.splits["vip"] = {1.0: [None, None], 0.1: [None, None], 0.005: [None]}
    assert answered.remarks([0.005, 0.1]) == [
        "vip: the logistic regression on embedding did not converge in its steps; with more it may do better",
        "vip: 0.5 % of the labels are too few to learn from, and are left out",
    ]


def test_nothing_is_told_of_models_that_converge():
    fitter = Fitter(1)
    fitter.splits(DatedQuestion(VIP, np.arange(USERS)), MADE, TRAIN, 0, [0.2])
    assert fitter.stopped == {}


def test_a_report_counts_users_and_positives_of_each_split():
    splits = [
        Fitter(1).splits(DatedQuestion(VIP, np.arange(USERS)), {"embedding": X}, train_N, 0, [])[1.0]
        for train_N in (TRAIN, ~TRAIN)
    ]
    found = measure({1.0: splits}, settings(), ["2024-06-01", "2024-07-01"]).result
    assert found.positive == "yes"
    assert [(s.as_of, s.train_users, s.test_users, s.train_positives, s.test_positives) for s in found.splits] == [
        (day, train.sum(), (~train).sum(), LABEL_N[train].sum(), LABEL_N[~train].sum())
        for day, train in (("2024-06-01", TRAIN), ("2024-07-01", ~TRAIN))
    ]


TEXTS = pa.chunked_array([np.where(LABEL_N, "yes", "no")])


def test_the_positive_class_can_be_chosen_and_turns_the_answers_round():
    chosen = settings(labels=[Label(name="vip", path="x", user_column="u", label_column="l", positive="no")])
    assert (chosen.positive_of("vip"), chosen.positive_of("other")) == ("no", None)
    turned = question("vip", TEXTS, chosen.positive_of("vip"))
    assert (turned.classes, turned.positive) == (("yes", "no"), "no")
    assert np.array_equal(turned.label_N, 1 - LABEL_N)
    assert question("vip", TEXTS).positive == "yes"
    churn = settings(tasks=[{"kind": "churn", "positive": "active"}, {"kind": "volume"}])
    assert (churn.positive_of("churn"), churn.positive_of("volume")) == ("active", None)


@pytest.mark.parametrize(
    ("texts", "said"), [(["no", "yes"], "'no', 'yes'"), (["a", "maybe", "z"], "'a', 'maybe', 'z'")]
)
def test_a_positive_class_that_is_none_of_two_is_refused_with_the_classes(texts, said):
    with pytest.raises(EvaluationError, match=rf"label 'vip': positive 'maybe': expected one of two .* \[{said}\]"):
        Classification.of("vip", pa.chunked_array([texts]), "maybe")


@pytest.mark.parametrize("shares", [[0.3, 0.1], [0.1, 0.1], [0.0], [1.0]])
def test_shares_of_labels_ascend_between_0_and_1(shares):
    with pytest.raises(ValueError, match=r"label_shares"):
        settings(label_shares=shares)

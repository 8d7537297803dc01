"""A planted answer is found, noise is not, and tasks that cannot be probed are refused."""

import sys
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from gur_spark.config.evaluation import Evaluation
from gur_spark.errors import EvaluationError
from gur_spark.evaluate import features, probe
from gur_spark.evaluate.figures import REPRESENTATIONS
from gur_spark.evaluate.probe import Population, evaluate
from gur_spark.evaluate.questions import Classification, Quantity
from gur_spark.evaluate.small_models import boosted_trees
from gur_spark.splits import held_out
from tests.aggregate_data import make_snapshot
from tests.evaluate.test_features import LAYOUT

USERS = 600
TRAIN = ~held_out(np.arange(USERS), 0.4, "test")
RNG = np.random.default_rng(0)
BINARY = Classification.of("churn", pa.chunked_array([RNG.choice(["active", "churned"], USERS, p=[0.6, 0.4])]))
THREE = Classification.of("persona", pa.chunked_array([RNG.choice(["a", "b", "c"], USERS)]))
NOISE = RNG.normal(size=(USERS, 6))


def asked(bootstrap, **changes):
    """Settings of one split, without shares of the labels."""
    given = {"horizon_days": 28, "test_share": 0.4, "max_users": 1000, "seed": 1, "label_shares": []} | changes
    return Evaluation(bootstrap=bootstrap, **given)


def planted(task):
    """The answer as a number, with a little noise, beside columns without meaning."""
    return np.column_stack([np.eye(len(task.classes))[task.label_N] + RNG.normal(0, 0.2, (USERS, 1)), NOISE[:, 1:]])


@pytest.fixture(scope="module", params=[BINARY, THREE], ids=["binary", "multi-class"])
def probed(request):
    """Returns (task, its users, its scores by (model, metric, representation), its differences)."""
    task = request.param
    noise = RNG.normal(size=(USERS, 6))
    representations = {features.PCA: NOISE, features.RANDOM: noise, features.EMBEDDING: planted(task)}
    result, scores, differences = probe.probe(task, representations, TRAIN, asked(200))
    return task, result, {(s.model, s.metric, s.representation): s for s in scores}, differences


def test_the_representation_that_holds_the_answer_wins_and_noise_is_a_coin(probed):
    task, _, scores, _ = probed
    metric = "AUC" if task is BINARY else "macro AUC"
    for model in ("logistic regression", "LightGBM"):
        embedding, random = (scores[model, metric, name] for name in (features.EMBEDDING, features.RANDOM))
        assert embedding.value > 0.95
        assert embedding.low > random.high
        assert random.low < 0.5 < random.high
        assert embedding.low <= embedding.value <= embedding.high


def test_the_difference_to_a_worse_representation_is_clear(probed):
    _, _, scores, differences = probed
    assert [(d.representation, d.against) for d in differences] == [
        (features.EMBEDDING, features.PCA),
        (features.EMBEDDING, features.RANDOM),
    ] * 4
    for d in differences:
        ours, theirs = (scores[d.model, d.metric, name].value for name in (d.representation, d.against))
        assert d.value == pytest.approx(ours - theirs)
        assert 0 < d.low <= d.value <= d.high


def test_users_are_those_of_the_split(probed):
    task, result, _, _ = probed
    assert (result.train_users, result.test_users) == (TRAIN.sum(), (~TRAIN).sum())
    labels = task.label_N[~TRAIN]
    assert result.classes == {name: (labels == k).mean() for k, name in enumerate(task.classes)}


def test_equal_representations_differ_by_exactly_nothing():
    x = planted(BINARY)
    _, _, differences = probe.probe(BINARY, {features.RAW: x, features.EMBEDDING: x}, TRAIN, asked(50))
    assert [(d.value, d.low, d.high) for d in differences] == [(0, 0, 0)] * 4


def test_users_without_a_label_take_no_part():
    half = Classification(BINARY.name, BINARY.classes, np.where(np.arange(USERS) % 2, BINARY.label_N, -1))
    x = planted(BINARY)
    result, scores, _ = probe.probe(half, {features.EMBEDDING: x}, TRAIN, asked(20))
    odd = np.arange(USERS) % 2 == 1
    assert (result.train_users, result.test_users) == ((TRAIN & odd).sum(), (~TRAIN & odd).sum())
    alone = Classification(BINARY.name, BINARY.classes, BINARY.label_N[odd])
    _, expected, _ = probe.probe(alone, {features.EMBEDDING: x[odd]}, TRAIN[odd], asked(20))
    assert scores == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a", None], r"label 'x': expected at least two classes among the users, got \['a'\]"),
        ([None, None], r"at least two classes among the users, got \[\]"),
        ([str(number) for number in range(51)], "at most 50 classes, got 51: is it a number"),
    ],
)
def test_labels_that_are_no_classes_are_refused(values, message):
    with pytest.raises(EvaluationError, match=message):
        Classification.of("x", pa.chunked_array([pa.array(values, pa.string())]))


@pytest.mark.parametrize(("side", "elsewhere"), [("train", ~TRAIN), ("test", TRAIN)])
def test_a_class_with_nobody_on_one_side_is_refused(side, elsewhere):
    vip = Classification("vip", ("no", "yes"), (np.arange(USERS) == np.flatnonzero(elsewhere)[0]).astype(np.int64))
    with pytest.raises(EvaluationError, match=rf"label 'vip': none of the \d+ {side} users is \['yes'\]"):
        probe.probe(vip, {features.EMBEDDING: NOISE}, TRAIN, asked(10))


def test_an_amount_that_is_in_the_representation_is_found_by_both_models():
    amount = RNG.gamma(1.0, 30.0, USERS)
    spent = Quantity.of("spent", pa.chunked_array([pa.array([None, *amount[1:]])]))
    x = np.column_stack([np.log1p(amount), NOISE])
    result, scores, differences = probe.probe(spent, {features.PCA: NOISE, features.EMBEDDING: x}, TRAIN, asked(50))
    assert result.test_users == (~TRAIN).sum() - (0 if TRAIN[0] else 1)
    found = {(s.model, s.metric, s.representation): s.value for s in scores}
    for model in ("ridge regression", "LightGBM"):
        assert found[model, "R2", features.EMBEDDING] > 0.8
        assert found[model, "Spearman", features.EMBEDDING] > 0.95
        assert found[model, "R2", features.PCA] < 0.1
    assert {d.verdict(0.005) for d in differences} == {"win"}


@pytest.mark.parametrize(
    ("amounts", "message"), [([0.0, 0.0, None], r"task 'spent': .* got \[0\.0\]"), ([None], "got")]
)
def test_amounts_that_are_all_equal_are_no_task(amounts, message):
    with pytest.raises(EvaluationError, match=message):
        Quantity.of("spent", pa.chunked_array([pa.array(amounts, pa.float64())]))


SETTINGS = asked(30, seeds=2, seed=3, label_shares=[0.3])


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    return make_snapshot(tmp_path_factory.mktemp("snapshot"), users=300, seed=1)


def population_of(snapshot, embedding, day=1, users=300):
    users = np.arange(users)[::-1]
    answers = pa.table(
        {
            "user_id": users,
            "events": users % 9,
            "embedding": pa.array(list(embedding[: len(users)].astype(np.float32)), pa.list_(pa.float32())),
            "persona": np.where(users % 2, "spender", "saver"),
        }
    )
    random = np.random.default_rng(9).normal(size=(len(users), 4))
    return Population(
        as_of=date(2024, 6, day),
        answers=answers,
        model_version="gur-test",
        snapshot=snapshot,
        layout=LAYOUT,
        more={features.RANDOM: random},
    )


def report_of(*populations):
    return evaluate(populations, SETTINGS, pipeline="test", notes=["made up"])


def test_a_report_compares_every_representation_of_the_same_users(snapshot):
    embedding = np.random.default_rng(1).normal(size=(300, 4))
    report = report_of(population_of(snapshot, embedding))
    assert (report.users, report.dimension, report.notes) == (300, 4, ["made up"])
    [task] = report.tasks
    assert sum(task.segments.values()) == task.test_users
    assert all(len(score.by_seed) == 2 for score in report.scores)
    assert {d.segment for d in report.differences} == {"all", "cold", "light", "heavy"}
    linear = [s for s in report.of("persona") if (s.model, s.metric) == ("logistic regression", "AUC")]
    auc = {s.representation: s for s in linear}
    assert list(auc) == list(REPRESENTATIONS)
    # The personas differ in what they do, and that is in the windows whatever the order of the users.
    assert min(auc[name].value for name in (features.RAW, features.PCA, features.BOTH)) > 0.9
    assert auc[features.EMBEDDING].low < 0.5 < auc[features.EMBEDDING].high
    assert report == report_of(population_of(snapshot, embedding))


def test_several_dates_are_asked_apart_and_a_figure_is_the_mean_over_them(snapshot, tmp_path):
    other = make_snapshot(tmp_path / "other", users=200, seed=2)
    embedding = np.random.default_rng(1).normal(size=(300, 4))
    populations = [population_of(snapshot, embedding), population_of(other, embedding, day=8, users=200)]
    both, *apart = report_of(*populations), *(report_of(one) for one in populations)
    assert (both.dates, both.users, both.seeds) == (["2024-06-01", "2024-06-08"], 300, 2)
    for score in both.scores:
        if (score.segment, score.label_share) == ("all", 1):
            [first, second] = [
                next(s for s in one.of(score.task) if (s.model, s.metric, s.representation) == key)
                for one in apart
                for key in [(score.model, score.metric, score.representation)]
            ]
            assert score.by_seed == pytest.approx([*first.by_seed, *second.by_seed])
            assert score.value == pytest.approx((first.value + second.value) / 2)
    [difference] = [d for d in both.headline("persona") if (d.against, d.model) == ("PCA", "LightGBM")]
    assert both.by_date(difference) == pytest.approx([np.mean(difference.by_seed[:2]), np.mean(difference.by_seed[2:])])
    assert both.by_split(difference) == pytest.approx(
        [np.mean(difference.by_seed[::2]), np.mean(difference.by_seed[1::2])]
    )
    # Users of both dates are the same ones: those of the second are among those of the first.
    assert both.tasks[0].test_users == apart[0].tasks[0].test_users
    assert both.tasks[0].classes == pytest.approx(
        {name: np.mean([one.tasks[0].classes[name] for one in apart]) for name in ("saver", "spender")}
    )


def test_without_labels_there_is_nothing_to_evaluate(snapshot):
    answers = pa.table({"user_id": [1, 2], "embedding": [[0.0], [1.0]], "events": [1, 1]})
    population = Population(
        as_of=date(2024, 6, 1), answers=answers, model_version="gur-test", snapshot=snapshot, layout=LAYOUT
    )
    with pytest.raises(EvaluationError, match=r"something in evaluation\.tasks or evaluation\.labels"):
        evaluate([population], SETTINGS, pipeline="test")


def test_a_missing_extra_is_named_when_it_is_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(EvaluationError, match=r"lightgbm cannot be imported .* pip install 'gur-spark\[evaluate\]'"):
        boosted_trees(NOISE, BINARY.label_N, NOISE, 2, seed=1)

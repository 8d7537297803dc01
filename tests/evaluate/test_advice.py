"""Advice names what to use, by models that were chosen on other users than those who measure them."""

import numpy as np
import pytest

from gur_spark.evaluate.advice import Advice
from gur_spark.evaluate.choice import advise, compare
from gur_spark.evaluate.figures import Difference, Score
from gur_spark.evaluate.pooling import DatedQuestion, Pool, Split
from gur_spark.evaluate.questions import Classification

LINEAR, TREES = "logistic regression", "LightGBM"
ALONE, BESIDE = ("embedding", "raw windows"), ("raw + embedding", "raw windows")
MORE = ("raw + embedding", "embedding")


def advice(*differences):
    """Advice from (pair, value, low, high) or (pair, value, low, high, share of the labels)."""
    best = [
        Score("churn", LINEAR, "AUC", "embedding", 0.886, 0.87, 0.9),
        Score("churn", TREES, "AUC", "raw windows", 0.876, 0.86, 0.89),
        Score("churn", TREES, "AUC", "raw + embedding", 0.9, 0.89, 0.91),
    ]
    apart = [
        Difference("churn", "best", "AUC", *pair, *values, label_share=share[0] if share else 1.0)
        for pair, *values, share in [(d[0], *d[1:4], d[4:]) for d in differences]
    ]
    return Advice("churn", "AUC", 0.005, best, apart)


@pytest.mark.parametrize(
    ("differences", "use", "says"),
    [
        (
            [(ALONE, 0.010, 0.004, 0.016)],
            "embedding",
            "use the embedding (AUC 0.886, linear model); raw windows reach 0.876 at best (LightGBM), "
            "0.010 [0.004, 0.016] less",
        ),
        (
            [(ALONE, -0.010, -0.016, -0.004)],
            "raw windows",
            "use raw windows (AUC 0.876, LightGBM); the embedding reaches 0.886 at best (linear model), "
            "0.010 [0.004, 0.016] less",
        ),
        (
            [(ALONE, 0.001, -0.003, 0.004)],
            "either",
            "the embedding (AUC 0.886, linear model) is as good as raw windows (AUC 0.876, LightGBM): "
            "+0.001 [-0.003, +0.004]",
        ),
        (
            [(ALONE, 0.010, -0.004, 0.024)],
            "not clear",
            "no clear difference between the embedding (AUC 0.886, linear model) and raw windows (AUC 0.876, "
            "LightGBM): +0.010 [-0.004, +0.024]",
        ),
        (
            [(ALONE, 0.010, 0.004, 0.016), (MORE, 0.014, 0.01, 0.02), (BESIDE, 0.024, 0.02, 0.03)],
            "raw + embedding",
            "use raw windows and the embedding together (AUC 0.900, LightGBM): 0.014 [0.010, 0.020] more than the "
            "embedding alone and 0.024 [0.020, 0.030] more than raw windows alone",
        ),
        (
            [(ALONE, 0.010, 0.004, 0.016), (MORE, 0.004, 0.001, 0.006), (BESIDE, 0.024, 0.02, 0.03)],
            "embedding",
            "use the embedding (AUC 0.886, linear model); raw windows reach 0.876 at best (LightGBM), "
            "0.010 [0.004, 0.016] less",
        ),
        ([], "not measured", "not measured; too few test users, or all have the same answer"),
    ],
    ids=["embedding", "raw windows", "as good", "not clear", "both", "both are not clearly more", "not measured"],
)
def test_a_sentence_says_what_to_use_and_by_how_much(differences, use, says):
    found = advice(*differences)
    assert (found.use, str(found)) == (use, f"churn: {says}")
    assert {key: found.to_dict()[key] for key in ("use", "says")} == {"use": use, "says": f"churn: {says}"}


def test_fewer_labels_are_told_after_all_of_them():
    shares = [(0.01, 0.013, 0.006, 0.02), (0.1, -0.02, -0.03, -0.01), (0.2, 0, -0.001, 0.001), (0.3, 0.01, -0.01, 0.03)]
    found = str(advice((ALONE, 0.010, 0.004, 0.016), *((ALONE, *values, share) for share, *values in shares)))
    assert found.split("; ")[2:] == [
        "with 1 % of the labels the embedding leads by 0.013 [0.006, 0.020]",
        "with 10 % of the labels raw windows lead by 0.020 [0.010, 0.030]",
        "with 20 % of the labels the embedding is as good: +0.000 [-0.001, +0.001]",
        "with 30 % of the labels there is no clear difference: +0.010 [-0.010, +0.030]",
    ]


USERS = 300


def pool_of(said, seed, bootstrap=100):
    """A pool of one split in which everyone is tested; ``said`` is a score per user by (model, representation)."""
    churned = (np.random.default_rng(seed).random(USERS) < 0.4).astype(np.int64)
    asked = DatedQuestion(Classification("churn", ("active", "churned"), churned), np.arange(USERS))
    predictions = {key: np.stack([-score, score], axis=1) for key, score in said(churned).items()}
    return Pool([Split(asked, np.arange(0), np.arange(USERS), predictions)], bootstrap, seed)


def test_the_better_model_of_each_side_is_found_and_compared():
    rng = np.random.default_rng(3)

    def said(churned):
        noise = rng.normal(size=(4, USERS))
        return {
            (LINEAR, "embedding"): churned + 0.1 * noise[0],
            (TREES, "embedding"): churned + 3 * noise[1],
            (LINEAR, "raw windows"): churned + 3 * noise[2],
            (TREES, "raw windows"): churned + noise[3],
        }

    found = advise(pool_of(said, 1), [], 1, 0.005)
    assert {s.representation: s.model for s in found.best} == {"embedding": LINEAR, "raw windows": TREES}
    embedding, raw = (s.value for s in found.best)
    [apart] = found.differences
    assert apart.value == pytest.approx(embedding - raw)
    assert apart.low <= apart.value <= apart.high
    assert found.use == "embedding"


def test_on_noise_a_side_with_a_choice_of_models_is_not_favoured():
    """The embedding has two models that guess, raw windows have one guess: choosing where one measures would favour
    the embedding."""
    fair, naive = [], []
    for trial in range(120):
        rng = np.random.default_rng(1000 + trial)
        guesses = dict(zip([(LINEAR, "embedding"), (TREES, "embedding")], rng.normal(size=(2, USERS)), strict=True))
        one = rng.normal(size=USERS)
        pool = pool_of(lambda _, g=guesses, o=one: g | {(LINEAR, "raw windows"): o, (TREES, "raw windows"): o}, trial)
        [d] = compare(pool, trial)[1]
        fair.append((d.value, d.low > 0, d.high < 0))
        found = {s.model + s.representation: s.value for s in pool.scores(1)[0]}
        naive.append(max(found[LINEAR + "embedding"], found[TREES + "embedding"]) - found[LINEAR + "raw windows"])
    values, wins, losses = (np.array(column, dtype=float) for column in zip(*fair, strict=True))
    error = values.std() / len(values) ** 0.5
    assert abs(values.mean()) < 3 * error
    assert np.mean(naive) > 3 * error
    # Each of 120 intervals of 95 % lies above 0, or below it, with a chance of 2.5 %: more than 9 have one of 0.2 %.
    assert max(wins.sum(), losses.sum()) <= 9

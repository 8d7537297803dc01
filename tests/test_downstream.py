"""What a switch would cost consumers: lost beyond chance or not, of whom, and for who is not retrained."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gur_spark.errors import GateError
from gur_spark.serving import downstream
from gur_spark.serving.downstream import Answers, consumer_loss, downstream_losses
from gur_spark.serving.gates import Embeddings
from gur_spark.serving.publishing import Published, check_replacement, publish, published
from gur_spark.tables import Tables
from tests.test_gates import D1, D2, D3, USERS, X, score

N, WIDTH = 3000, 5
RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(N, WIDTH))
TURN = np.linalg.qr(RNG.normal(size=(WIDTH, WIDTH)))[0]
LABEL = (KNOWN @ np.arange(WIDTH) + RNG.normal(size=N) > 0).astype(np.int64)
EVENTS = RNG.permutation(N).astype(np.float64)
NOISE = RNG.normal(size=(N, WIDTH))
SAME = Answers(np.arange(N), LABEL, EVENTS, KNOWN, KNOWN, None)
TEST = np.arange(N) % 3 == 0


def losses(answers: Answers) -> dict[str, float]:
    return dict(downstream_losses(answers, TEST, bootstrap=100, seed=0))


@pytest.mark.any_engine
def test_a_space_that_only_turned_loses_nothing_beyond_chance_of_anybody() -> None:
    found = losses(replace(SAME, new_NL=KNOWN @ TURN + 3))
    assert next(iter(found)) == "all users"
    assert len(found) == 3
    assert all(-0.01 < lost <= 0 for lost in found.values())


@pytest.mark.any_engine
def test_what_is_lost_of_one_segment_only_is_named() -> None:
    busy = np.median(EVENTS[TEST]) < EVENTS
    found = losses(replace(SAME, new_NL=np.where(busy[:, None], NOISE, KNOWN)))
    little, much = list(found)[1:]
    assert little.startswith("up to") and much.startswith("more than")  # noqa: PT018
    assert found[much] > 0.2 > 0.05 > found[little]
    assert found["all users"] > 0.05


@pytest.mark.any_engine
def test_what_a_consumer_loses_is_that_of_a_regression_asked_with_other_rows() -> None:
    other = 0.7 * KNOWN + 0.5 * NOISE
    asked = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(KNOWN[~TEST], LABEL[~TEST])
    own, theirs = (roc_auc_score(LABEL[TEST], asked.predict_proba(x[TEST])[:, 1]) for x in (KNOWN, other))
    assert consumer_loss(replace(SAME, claimed_NL=other), TEST) == pytest.approx(1 - theirs / own)
    assert consumer_loss(replace(SAME, claimed_NL=KNOWN), TEST) == 0


@pytest.mark.any_engine
def test_several_classes_are_asked_too() -> None:
    classes = np.digitize(KNOWN[:, 0], [-0.5, 0.5])
    assert consumer_loss(replace(SAME, label_N=classes, claimed_NL=KNOWN @ TURN), TEST) > 0.1
    assert losses(replace(SAME, label_N=classes, new_NL=NOISE))["all users"] > 0.3


@pytest.fixture
def config(make_config: Any, tmp_path: Any) -> Any:
    """Gates that ask for the cluster of each user, and nothing else."""
    lines = [f"{user},{user % 8 // 2}" for user in range(USERS)]
    (tmp_path / "kinds.csv").write_text("\n".join(["user,kind", *lines]))
    label = {"name": "kind", "path": str(tmp_path / "kinds.csv"), "user_column": "user", "label_column": "kind"}
    off = dict.fromkeys(("min_rows_share", "max_norm_ratio", "max_psi", "max_domain_auc", "min_neighbours"))
    changes = {"gates": {**off, "task": "kind"}, "evaluation": {"labels": [label], "bootstrap": 50}}
    return make_config(changes)


@pytest.mark.any_engine
def test_another_version_is_asked_before_it_is_published(tables: Tables, config: Any) -> None:
    from gur_spark import schema

    tables.create("models", schema.MODELS)
    score(tables, "one", D1, X)
    publish(tables, config, "one", D1, "first")
    # The version moves on: there is nothing to ask.
    score(tables, "one", D2, X[::-1])
    publish(tables, config, "one", D2, "weekly")
    score(tables, "two", D3, X)
    with pytest.raises(GateError, match=r"dates with embeddings of two and one to ask .kind. at 0.000"):
        publish(tables, config, "two", D3, "monthly")
    score(tables, "two", D1, np.random.default_rng(1).normal(size=X.shape))
    with pytest.raises(GateError, match=r"AUC of kind lost beyond chance, all users, 0\.\d+, expected at most 0"):
        publish(tables, config, "two", D3, "monthly")
    assert published(tables, config) == Published(model_version="one", as_of=D2)
    score(tables, "three", D1, X + 0.01)
    publish(tables, config, "three", D1, "monthly")
    # What claims the published space is asked in it.
    score(tables, "four", D1, X[:, ::-1])
    score(tables, "four@three", D1, X * np.array([1, 1, 1, -1, -1, -1]))
    with pytest.raises(GateError, match=r"do not pass: relative AUC of kind lost by who is not retrained 0\.\d+"):
        publish(tables, config, "four", D1, "monthly")


@pytest.mark.any_engine
def test_published_rows_are_replaced_only_by_such_as_pass(tables: Tables, make_config: Any) -> None:
    config = make_config({"gates": {"max_norm_ratio": 1.2}})
    score(tables, "one", D1, X)
    publish(tables, config, "one", D1, "first")
    score(tables, "again", D1, X * 1.5)
    rows = tables.read("embeddings").where("model_version = 'again'")
    with pytest.raises(GateError, match=r"norm ratio 1\.500, expected at most 1\.2"):
        check_replacement(tables, config, rows, "one", D1)
    check_replacement(tables, config, rows, "one", D2)
    check_replacement(tables, config, tables.read("embeddings").where("model_version = 'one'"), "one", D1)


@pytest.mark.slow
def test_churn_is_asked_at_the_newest_date_whose_future_is_complete(whole: Any) -> None:
    tables, config = whole
    asking = config.model_copy(update={"gates": config.gates.model_copy(update={"task": "churn"})})
    now = published(tables, config)
    assert now is not None
    day, label = downstream._newest_date(tables, asking, now.model_version, now.model_version) or (None, None)
    assert day == date(2025, 4, 1)
    one = Embeddings(now.model_version, day, tables.read("embeddings"), now.model_version)
    answers = downstream._answers(tables, asking, label, day, one, one, "none")
    assert len(answers.users_N) == len(answers.now_NL) > 50
    assert set(answers.label_N) == {0, 1}
    np.testing.assert_array_equal(answers.now_NL, answers.claimed_NL)

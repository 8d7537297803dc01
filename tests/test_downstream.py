"""Gates of a switch measure the loss of consumers: beyond chance, by segment, and without retraining."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gur_spark.config.evaluation import Evaluation
from gur_spark.errors import GateError
from gur_spark.evaluate import downstream
from gur_spark.evaluate.downstream import Answers, consumer_loss, downstream_losses
from gur_spark.evaluate.questions import Classification
from gur_spark.outputs.embeddings import EMBEDDINGS
from gur_spark.outputs.gates import VersionRows
from gur_spark.registry.artefact import Origin
from gur_spark.registry.published import Published, published
from gur_spark.serving.publishing import check_replacement, publish
from gur_spark.tables.delta import Tables
from tests.model_rows import add_row
from tests.test_gates import D1, D2, D3, USERS, X, score
from tests.versions import untrained_version

N, WIDTH = 3000, 5
RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(N, WIDTH))
TURN = np.linalg.qr(RNG.normal(size=(WIDTH, WIDTH)))[0]
LABEL = (KNOWN @ np.arange(WIDTH) + RNG.normal(size=N) > 0).astype(np.int64)
EVENTS = RNG.permutation(N) + 1
NOISE = RNG.normal(size=(N, WIDTH))
SAME = Answers(np.arange(N), Classification("kind", ("no", "yes"), LABEL), EVENTS, KNOWN, KNOWN, None)
TEST = np.arange(N) % 3 == 0
SETTINGS = Evaluation(horizon_days=28, test_share=0.3, bootstrap=100, max_users=N, seed=0)


def losses(answers: Answers) -> dict[str, float]:
    return dict(downstream_losses(answers, TEST, SETTINGS))


@pytest.mark.any_engine
def test_a_space_that_only_turned_loses_nothing_beyond_chance_of_anybody() -> None:
    found = losses(replace(SAME, new_NL=KNOWN @ TURN + 3))
    assert list(found) == ["all users", "cold", "light", "heavy"]
    assert all(-0.01 < lost <= 0 for lost in found.values())


@pytest.mark.any_engine
def test_what_is_lost_of_one_segment_only_is_named() -> None:
    busy = N * 2 / 3 < EVENTS
    found = losses(replace(SAME, new_NL=np.where(busy[:, None], NOISE, KNOWN)))
    assert found["heavy"] > 0.2 > 0.05 > max(found["cold"], found["light"])
    assert found["all users"] > 0.05


@pytest.mark.any_engine
def test_what_a_consumer_loses_is_that_of_a_regression_asked_with_other_rows() -> None:
    other = 0.7 * KNOWN + 0.5 * NOISE
    asked = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)).fit(KNOWN[~TEST], LABEL[~TEST])
    own, theirs = (roc_auc_score(LABEL[TEST], asked.predict_proba(x[TEST])[:, 1]) for x in (KNOWN, other))
    assert consumer_loss(replace(SAME, claimed_NL=other), TEST, 0) == pytest.approx(1 - theirs / own, abs=1e-4)
    assert consumer_loss(replace(SAME, claimed_NL=KNOWN), TEST, 0) == 0


@pytest.mark.any_engine
def test_several_classes_are_asked_too() -> None:
    classes = Classification("kind", ("a", "b", "c"), np.digitize(KNOWN[:, 0], [-0.5, 0.5]))
    assert consumer_loss(replace(SAME, task=classes, claimed_NL=KNOWN @ TURN), TEST, 0) > 0.1
    assert losses(replace(SAME, task=classes, new_NL=NOISE))["all users"] > 0.3


@pytest.fixture
def config(make_config: Any, tmp_path: Any) -> Any:
    """Gates that ask for the cluster of each user, and nothing else."""
    lines = [f"{user},{user % 8 // 2}" for user in range(USERS)]
    (tmp_path / "kinds.csv").write_text("\n".join(["user,kind", *lines]))
    label = {"name": "kind", "path": str(tmp_path / "kinds.csv"), "user_column": "user", "label_column": "kind"}
    off = dict.fromkeys(("min_rows_share", "max_norm_ratio", "max_psi", "max_domain_auc", "min_neighbours"))
    changes = {"gates": {**off, "task": "kind"}, "evaluation": {"labels": [label], "bootstrap": 50}}
    return make_config(changes)


def register(tables: Tables, count: int, first: int = 1, seen_until: date | None = date(2024, 1, 1)) -> list[str]:
    """Versions with their rows in ``models``, in the order in which they were trained; their names."""
    names = []
    for number in range(first, first + count):
        origin = Origin(snapshots=(), dates=(), seen_until=seen_until)
        path = untrained_version(tables.folder("artefacts"), origin=origin, metrics={"number": number})
        names.append(Path(path).name)
        add_row(tables, names[-1], path=path, created=datetime(2024, 1, number, tzinfo=UTC))
    return names


def asked(tables: Tables, config: Any, new: str, now: str) -> list[str]:
    """Outcomes of the gates of a switch; each of these is not passed."""
    rows = tables.read("embeddings")
    sides = (
        VersionRows(output="embeddings", model_version=version, as_of=D1, rows=rows, space=version)
        for version in (new, now)
    )
    found = list(downstream.outcomes(tables, config, *sides))
    assert not any(outcome.passed for outcome in found)
    return [str(outcome) for outcome in found]


@pytest.mark.any_engine
def test_gates_that_cannot_be_asked_are_not_passed_and_say_why(tables: Tables, config: Any, tmp_path: Path) -> None:
    [one] = register(tables, 1)
    # Means have seen the same events as their version.
    [two] = register(tables, 1, first=2, seen_until=D2)
    [silent] = register(tables, 1, first=3, seen_until=None)
    for version in (one, f"{one}-mean3", two, f"{two}-mean3", silent, f"{silent}-mean3", "gone"):
        score(tables, version, D1, X)
    assert asked(tables, config, "gone", one) == [
        "answers to 'kind' 0.000, expected some: nothing is known of the training of gone: it is not in models"
    ]
    for version in (silent, f"{silent}-mean3"):
        for sides in ((version, one), (one, version)):
            (found,) = asked(tables, config, *sides)
            assert found.startswith(f"answers to 'kind' 0.000, expected some: the card of {silent} does not say until")
    for version in (two, f"{two}-mean3"):
        assert asked(tables, config, version, one)[0].startswith(f"dates with embeddings of {version} and {one} to ask")
    few = "\n".join(f"{user},{user % 2}" for user in range(199))
    one_other = "\n".join(f"{user},{int(user == 7)}" for user in range(USERS))
    kinds = tmp_path / "kinds.csv"
    for content, said in (
        (few, "users of 2024-06-01 to ask 'kind' of 199.000, expected at least 200"),
        (one_other, "users is ['1']; expected some of each of ['0', '1']"),
        (None, f"label 'kind': {kinds} does not exist"),
    ):
        kinds.write_text(f"user,kind\n{content}") if content else kinds.unlink()
        (found,) = asked(tables, config, f"{one}-mean3", one)
        assert said in found
    publish(tables, config, one, D1, "first")
    publish(tables, config, two, D1, "kinds are gone", force=True)
    assert published(tables, config.name) == Published(model_version=two, as_of=D1)


@pytest.mark.any_engine
def test_who_is_not_retrained_must_be_asked_where_rows_in_the_published_space_are_wanted(
    tables: Tables, config: Any
) -> None:
    one, two = register(tables, 2)
    for version in (one, two):
        score(tables, version, D1, X)
    mapping = config.scoring.model_copy(update={"in_space_of": [one]})
    only = config.gates.model_copy(update={"max_downstream_loss": None})
    config = config.model_copy(update={"scoring": mapping, "gates": only})
    (said,) = asked(tables, config, two, one)
    assert said.startswith(f"rows of {two}@{one} at 2024-06-01 for consumers that are not retrained 0.000, expected at")
    # An older version is not mapped to a newer one, and so is not asked for.
    assert asked(tables, config, one, two) == []


@pytest.mark.any_engine
def test_where_the_published_rows_are_gone_nothing_is_passed_but_by_force(tables: Tables, make_config: Any) -> None:
    config = make_config()
    score(tables, "one", D1, X)
    publish(tables, config, "one", D1, "first")
    score(tables, "one", D2, X)
    tables.replace(tables.read("embeddings").limit(0), "embeddings", f"as_of = DATE '{D1}'")
    with pytest.raises(GateError, match=r"rows of one at 2024-06-01 to compare with 0\.000, expected at least 1"):
        publish(tables, config, "one", D2, "weekly")
    publish(tables, config, "one", D2, "they were deleted", force=True)
    assert published(tables, config.name) == Published(model_version="one", as_of=D2)


@pytest.mark.any_engine
def test_another_version_is_asked_before_it_is_published(tables: Tables, config: Any) -> None:
    one, two, three, four = register(tables, 4)
    score(tables, one, D1, X)
    publish(tables, config, one, D1, "first")
    # The version moves on: there is nothing to ask.
    score(tables, one, D2, X[::-1])
    publish(tables, config, one, D2, "weekly")
    score(tables, two, D3, X)
    with pytest.raises(GateError, match=rf"dates with embeddings of {two} and {one} to ask .kind. at 0\.000"):
        publish(tables, config, two, D3, "monthly")
    score(tables, two, D1, np.random.default_rng(1).normal(size=X.shape))
    with pytest.raises(GateError, match=r"AUC of kind lost beyond chance, all users, 0\.\d+, expected at most 0"):
        publish(tables, config, two, D3, "monthly")
    assert published(tables, config.name) == Published(model_version=one, as_of=D2)
    score(tables, three, D1, X + 0.01)
    publish(tables, config, three, D1, "monthly")
    # Rows that claim the published space are asked in it.
    score(tables, four, D1, X[:, ::-1])
    score(tables, f"{four}@{three}", D1, X * np.array([1, 1, 1, -1, -1, -1]))
    with pytest.raises(GateError, match=r"relative AUC of kind lost by consumers that are not retrained 0\.\d+"):
        publish(tables, config, four, D1, "monthly")


@pytest.mark.any_engine
def test_published_rows_are_replaced_only_by_such_as_pass(tables: Tables, make_config: Any) -> None:
    config = make_config({"gates": {"max_norm_ratio": 1.2}})
    score(tables, "one", D1, X)
    publish(tables, config, "one", D1, "first")
    score(tables, "again", D1, X * 1.5)
    rows = tables.read("embeddings").where("model_version = 'again'")
    with pytest.raises(GateError, match=r"norm ratio 1\.500, expected at most 1\.2"):
        check_replacement(tables, config, EMBEDDINGS, rows, "one", D1)
    check_replacement(tables, config, EMBEDDINGS, rows, "one", D2)
    check_replacement(tables, config, EMBEDDINGS, tables.read("embeddings").where("model_version = 'one'"), "one", D1)


@pytest.mark.any_engine
def test_a_dated_label_is_asked_at_the_newest_date_that_has_one(tables: Tables, config: Any, tmp_path: Path) -> None:
    one, two = register(tables, 2)
    for version in (one, two):
        for day in (D1, D2, D3):
            score(tables, version, day, X)
    dated = config.evaluation.labels[0].model_copy(update={"date_column": "day"})
    evaluation = config.evaluation.model_copy(update={"labels": [dated]})
    asking = config.model_copy(update={"evaluation": evaluation})
    # User 5 has no class yet.
    (tmp_path / "kinds.csv").write_text(f"user,kind,day\n3,a,{D1}\n4,b,{D2}\n5,,{D3}\n")
    day, label = downstream._newest_date(tables, asking, two, one) or (None, None)
    assert day == D2
    assert [tuple(row) for row in label.collect()] == [(4, "b")]
    (tmp_path / "kinds.csv").write_text("user,kind,day\n3,a,2024-01-02\n")
    assert downstream._newest_date(tables, asking, two, one) is None


@pytest.mark.slow
def test_churn_is_asked_at_the_newest_date_whose_future_is_complete(whole: Any) -> None:
    tables, config = whole
    asking = config.model_copy(update={"gates": config.gates.model_copy(update={"task": "churn"})})
    now = published(tables, config.name)
    assert now is not None
    day, label = downstream._newest_date(tables, asking, now.model_version, now.model_version) or (None, None)
    assert day == date(2025, 4, 1)
    one = VersionRows(
        output="embeddings",
        model_version=now.model_version,
        as_of=day,
        rows=tables.read("embeddings"),
        space=now.model_version,
    )
    answers = downstream._answers(tables, asking, label, day, one, one)
    assert len(answers.users_N) == len(answers.now_NL) > 50
    assert answers.task.classes == ("active", "churned")
    np.testing.assert_array_equal(answers.now_NL, answers.claimed_NL)
